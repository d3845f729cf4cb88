"""The replicas' manifest: what Kubernetes takes it for, what pods may do, and what they start."""

import functools
from pathlib import PurePosixPath

import kubernetes_validate
import pytest
import yaml

from privacy.budget import open_plan
from teacher_server.limits import Limits
from teacher_server.posture import require_safe
from teacher_server.revocation import Revocations
from tests.deploy.command_lines import FILES, Programs, parsed

PATH = FILES.parent / "teacher" / "kubernetes" / "teacher.yaml"


@functools.cache
def objects():
    return list(yaml.safe_load_all(PATH.read_text(encoding="utf-8")))


def the(kind, name="ktan-teacher"):
    (one,) = [one for one in objects() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return one


@pytest.fixture(scope="module")
def pod():
    return the("Deployment")["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    (one,) = pod["spec"]["containers"]
    return one


@pytest.fixture(scope="module")
def mounts(container):
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


@pytest.fixture(scope="module")
def serving(container, tmp_path_factory):
    """The arguments of the function that a pod calls, with the image's own entry point."""
    ((name, content),) = the("ConfigMap")["data"].items()
    options = tmp_path_factory.mktemp("options") / name
    options.write_text(content, encoding="utf-8")
    assert f"/etc/ktan/serve/{name}" in container["args"]
    return parsed(["teacher-server", *container["args"]], options)


@pytest.mark.parametrize("version", ["1.31", "1.34"])
def test_kubernetes_knows_every_field(version):
    for one in objects():
        kubernetes_validate.validate(one, version, strict=True)


def test_every_container_is_locked_down(pod):
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in [*spec["initContainers"], *spec["containers"]]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= one["resources"]["requests"].keys()
        assert one["resources"]["limits"]["memory"] == one["resources"]["requests"]["memory"]


def test_it_holds_no_secret(container):
    assert not [one for one in objects() if one["kind"] == "Secret"]
    assert not container.get("env")


def test_all_that_selects_pods_selects_these(pod):
    labels = pod["metadata"]["labels"].items()
    for selector in (
        the("Deployment")["spec"]["selector"]["matchLabels"],
        the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        the("Service")["spec"]["selector"],
    ):
        assert selector
        assert selector.items() <= labels


def test_a_pod_sees_what_its_options_name(pod, serving, mounts):
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in mounts.values()} <= volumes
    options = serving["options"]
    named = (serving["teacher"], serving["ledger"], serving["witness"], options.certs,
             options.limits, options.revoked)  # fmt: skip
    for path in named:
        assert any(PurePosixPath(path).is_relative_to(mount) for mount in mounts)
    written = {place for place, mount in mounts.items() if not mount.get("readOnly")}
    assert written == {"/private", "/witness", "/tmp"}


def test_replicas_share_the_witness_and_no_ledger_of_sqlite(pod):
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert the("Deployment")["spec"]["replicas"] > 1
    assert "persistentVolumeClaim" in volumes["witness"]
    assert volumes["private"]["emptyDir"]["medium"] == "Memory"
    assert volumes["teachers"]["persistentVolumeClaim"]["readOnly"]


def test_what_is_followed_is_mounted_so_that_it_changes(mounts):
    # A file that is mounted by itself stays as it was when the pod began.
    for place in ("/etc/ktan/certs", "/etc/ktan/live"):
        assert "subPath" not in mounts[place]


def test_keys_are_read_by_the_group_and_nobody_else(pod):
    group = pod["spec"]["securityContext"]["fsGroup"]
    assert group == pod["spec"]["securityContext"]["runAsGroup"]
    secrets = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
    assert secrets
    assert {secret["defaultMode"] for secret in secrets} == {0o440}


def test_the_copied_ledger_is_one_that_serve_takes(pod, tmp_path):
    (copying,) = pod["spec"]["initContainers"]
    secret, private, witness = (tmp_path / name for name in ("secret", "private", "witness"))
    for folder in (secret, private, witness):
        folder.mkdir()
    (witness / "head.json").write_text("{}")
    for name in ("signing-key.pem", "secret.key", "database-url"):
        (secret / name).write_text(name)
        (secret / name).chmod(0o444)
    script = copying["args"][0]
    for name, folder in (("secret", secret), ("private", private), ("witness", witness)):
        script = script.replace(f"/{name}/", f"{folder}/")
    for _ in range(2):  # a container that is begun again finds its first copy
        assert Programs(tmp_path / "bin").run([*copying["command"], script]) == 0
    copied = private / "ledger"
    assert {path.name: path.read_text() for path in copied.iterdir()} == {
        name: name for name in ("signing-key.pem", "secret.key", "database-url")
    }
    assert {path.stat().st_mode & 0o077 for path in copied.iterdir()} == {0}
    require_safe(copied, copied, {})


def test_limits_and_revocations_are_read(tmp_path):
    data = the("ConfigMap", "ktan-teacher-live")["data"]
    for name, content in data.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    Limits(tmp_path / "limits.toml", open_plan(8.0, 1e-5)).admit("anna", 1)
    Revocations(tmp_path / "revoked", needed=True)


def test_a_pod_drains_before_it_is_killed(pod, container, serving):
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "/bin/sleep"
    needed = int(command[1]) + serving["options"].grace
    assert pod["spec"]["terminationGracePeriodSeconds"] > needed + 15


def test_a_lost_replica_is_replaced_before_one_is_taken_away():
    rolling = the("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    assert the("PodDisruptionBudget")["spec"]["minAvailable"] >= 1


def test_ports_are_the_same_everywhere(container, serving):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    options = serving["options"]
    assert options.listen == f"0.0.0.0:{ports['grpc']}"
    assert options.metrics == f"0.0.0.0:{ports['metrics']}"
    (public,) = the("Service")["spec"]["ports"]
    assert public["targetPort"] == "grpc"  # nobody from outside is led to the metrics
    for name, path in (("startup", "livez"), ("liveness", "livez"), ("readiness", "readyz")):
        asked = container[f"{name}Probe"]["httpGet"]
        assert asked == {"path": f"/{path}", "port": "metrics"}


def test_the_metrics_are_for_the_monitoring_alone(container):
    policy = the("NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    of_port = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["ingress"]}
    assert of_port.keys() == {port["containerPort"] for port in container["ports"]}
    assert of_port[9464]
    assert all(rule.get("to") for rule in policy["egress"])


def test_as_many_threads_as_processors(container, serving):
    assert serving["options"].threads == int(container["resources"]["requests"]["cpu"])
