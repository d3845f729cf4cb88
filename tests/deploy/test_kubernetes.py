"""The manifests: what Kubernetes takes them for, what pods may do, and what they start."""

import functools

import kubernetes_validate
import pytest
import yaml

from tests.deploy.command_lines import FILES, Programs, command_of, parsed

PATHS = sorted((FILES / "kubernetes").glob("*.yaml"))
TEACHERS, STUDENT = (FILES / "kubernetes" / f"{name}.yaml" for name in ("teachers", "student"))


@functools.cache
def everything(path):
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def objects(path, kind=None):
    return [one for one in everything(path) if kind in (None, one["kind"])]


def pods(path):
    return {job["metadata"]["name"]: job["spec"]["template"] for job in objects(path, "Job")}


def claims(pod):
    """Mount path → claim."""
    spec = pod["spec"]
    of_volume = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }
    (container,) = spec["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() <= {volume["name"] for volume in spec["volumes"]}
    return {mounts[name]: claim for name, claim in of_volume.items()}


def started(pod, folder, index, path):
    """What a pod's container starts: torchrun's options, and the arguments of our command."""
    programs = Programs(folder / "bin")
    for name in ("torchrun", "teacher-server"):
        programs.add(name)
    (container,) = pod["spec"]["containers"]
    script = " ".join(container["args"]).replace("/shared/first", str(folder / "first"))
    shell = [*container["command"], script]
    assert programs.run(shell, JOB_COMPLETION_INDEX=str(index)) == 0
    (config,) = objects(path, "ConfigMap")
    ((name, content),) = config["data"].items()
    options = folder / name
    options.write_text(content, encoding="utf-8")
    calls = {name: programs.calls(name) for name in ("torchrun", "teacher-server")}
    ((program, (words,)),) = [item for item in calls.items() if item[1]]
    own, command = command_of([program, *words])
    assert f"/etc/ktan/{name}" in command
    return own, parsed(command, options)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("version", ["1.31", "1.34"])
def test_kubernetes_knows_every_field(path, version):
    for one in objects(path):
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_pod_is_locked_down(path):
    for pod in pods(path).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 0
        assert "fsGroup" not in spec["securityContext"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            written = {mount["mountPath"] for mount in container["volumeMounts"]}
            for variable in container.get("env", []):
                if variable["name"] in ("HOME", "TMPDIR"):
                    assert variable["value"] in written


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_no_manifest_holds_a_secret(path):
    assert not objects(path, "Secret")
    for pod in pods(path).values():
        for container in pod["spec"]["containers"]:
            names = {variable["name"] for variable in container["env"]}
            assert not {name for name in names if "KEY" in name or "PASSWORD" in name}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_pod_is_under_the_policy(path):
    (policy,) = objects(path, "NetworkPolicy")
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    wanted = policy["spec"]["podSelector"]["matchLabels"].items()
    assert wanted
    for pod in pods(path).values():
        assert wanted <= pod["metadata"]["labels"].items()


def test_the_pods_of_private_teachers_have_no_network():
    (policy,) = objects(TEACHERS, "NetworkPolicy")
    assert policy["spec"].keys() == {"podSelector", "policyTypes"}


def test_only_its_own_pods_reach_a_students():
    (policy,) = objects(STUDENT, "NetworkPolicy")
    own = {"podSelector": policy["spec"]["podSelector"]}
    assert policy["spec"]["ingress"] == [{"from": [own]}]
    anywhere = [rule for rule in policy["spec"]["egress"] if not rule.get("to")]
    assert not anywhere


def test_every_rank_is_somebodys(tmp_path):
    jobs = {job["metadata"]["name"]: job for job in objects(TEACHERS, "Job")}
    first, others = jobs["ktan-teachers-rank-0"], jobs["ktan-teachers-ranks"]
    count = others["spec"]["completions"]
    assert others["spec"]["completionMode"] == "Indexed"
    assert others["spec"]["parallelism"] == count  # none may wait for another's end
    ranks = []
    for number, (job, index) in enumerate([(first, 0), *((others, i) for i in range(count))]):
        folder = tmp_path / str(number)
        folder.mkdir()
        own, arguments = started(job["spec"]["template"], folder, index, TEACHERS)
        assert not own  # ranks do not talk
        assert arguments["ranks"] == count + 1
        assert arguments["options"].mode == "ensemble"
        ranks.append(arguments["rank"])
    assert ranks == list(range(count + 1))


def test_rank_0_alone_sees_the_ledger(tmp_path):
    first, others = (pods(TEACHERS)[f"ktan-teachers-{name}"] for name in ("rank-0", "ranks"))
    _, arguments = started(first, tmp_path, 0, TEACHERS)
    alone = claims(first).items() - claims(others).items()
    assert {str(arguments["ledger"]), str(arguments["witness"].parent)} == dict(alone).keys()
    assert claims(others).items() <= claims(first).items()
    # States, and what is read in common, lie where every rank sees them.
    assert str(arguments["out"].parent) in claims(others)


def test_only_a_mistake_ends_a_teachers_job_at_once():
    for job in objects(TEACHERS, "Job"):
        rules = job["spec"]["podFailurePolicy"]["rules"]
        codes = [rule["onExitCodes"] for rule in rules if rule["action"] == "FailJob"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert codes == [
            {"containerName": container["name"], "operator": "In", "values": [2]},
        ]


@pytest.mark.parametrize(("index", "hosts"), [(0, "True"), (1, "False")])
def test_students_pods_find_one_another(tmp_path, index, hosts):
    (job,) = objects(STUDENT, "Job")
    (service,) = objects(STUDENT, "Service")
    pod = job["spec"]["template"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    own, arguments = started(pod, tmp_path, index, STUDENT)
    host, port = own["rdzv_endpoint"].split(":")
    # An Indexed Job names its pods so.
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(port) == service["spec"]["ports"][0]["port"]
    assert f"is_host={hosts}" in own["rdzv_conf"].split(",")
    assert int(own["nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    (container,) = pod["spec"]["containers"]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert own["nproc_per_node"] == gpus
    processes = int(own["nnodes"]) * int(gpus)
    assert arguments["trainer"].answered_batch % processes == 0
    assert arguments["trainer"].labelled_batch % processes == 0
    assert arguments["yes"]
    assert not arguments.get("resume", False)


def test_a_pod_that_is_begun_again_says_so(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "config.toml").touch()
    (pod,) = pods(STUDENT).values()
    _, arguments = started(pod, tmp_path, 1, STUDENT)
    assert arguments["resume"]


def test_the_clients_key_becomes_its_owners_alone(tmp_path):
    (pod,) = pods(STUDENT).values()
    (copying,) = pod["spec"]["initContainers"]
    secret, certs = tmp_path / "secret", tmp_path / "certs"
    secret.mkdir()
    certs.mkdir()
    (secret / "key.pem").write_text("a key")
    script = copying["args"][0].replace("/secret", str(secret)).replace("/certs", str(certs))
    assert Programs(tmp_path / "bin").run([*copying["command"], script]) == 0
    assert (certs / "key.pem").read_text() == "a key"
    assert (certs / "key.pem").stat().st_mode & 0o777 == 0o400
