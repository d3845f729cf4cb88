"""The jobs for Slurm: what they start, what they go on from, and what is queued again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.command_lines import FILES, Programs, command_of, parsed

SCRIPTS = sorted((FILES / "slurm").glob("*.sbatch"))
TEACHERS, STUDENT, COMPARISON = (
    FILES / "slurm" / f"{name}.sbatch" for name in ("teachers", "student", "comparison")
)
# What follows the options runs as the step's one task.
SRUN = 'while [[ $1 == --* ]]; do shift; done; exec "$@"'
SCONTROL = "[[ $1 != show ]] || printf '%s\\n' node-9 node-10"
SLURM = {
    "SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "node-[9-10]", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_ARRAY_TASK_ID": "4",
}  # fmt: skip


@pytest.fixture
def programs(tmp_path):
    made = Programs(tmp_path / "bin")
    made.add("srun", SRUN)
    made.add("scontrol", SCONTROL)
    return made


def queued_again(programs):
    return ["requeue", "41234"] in programs.calls("scontrol")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_has_nothing_to_say_against_a_script(script):
    subprocess.run(["bash", "-n", script], check=True)
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_all_of_slurms_options_come_before_the_first_command(script):
    lines = script.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert max(options) < first  # Slurm passes over those that come later


class TestTeachers:
    def test_a_task_is_a_rank_and_needs_no_torchrun(self, programs, tmp_path):
        out = tmp_path / "teacher"
        programs.add("teacher-server", f"mkdir -p {out}; touch {out}/card.json")
        assert programs.run(["bash", TEACHERS], OUT=str(out), **SLURM) == 0
        (words,) = programs.calls("teacher-server")
        arguments = parsed(["teacher-server", *words])
        assert (arguments["rank"], arguments["ranks"]) == (3, 8)
        assert arguments["out"] == out
        assert arguments["options"].mode == "ensemble"
        assert not queued_again(programs)

    def test_a_rank_that_dies_is_begun_again_by_itself(self, programs, tmp_path):
        out, died = tmp_path / "teacher", tmp_path / "died"
        programs.add(
            "teacher-server",
            f"[[ -e {died} ]] || {{ touch {died}; kill -KILL $$; }}\n"
            f"mkdir -p {out}; touch {out}/card.json",
        )
        assert programs.run(["bash", TEACHERS], OUT=str(out), **SLURM) == 0
        first, second = programs.calls("teacher-server")
        assert first == second
        assert len(programs.calls("srun")) == 1

    def test_a_mistake_is_neither_tried_nor_queued_again(self, programs, tmp_path):
        programs.add("teacher-server", "exit 2")
        assert programs.run(["bash", TEACHERS], OUT=str(tmp_path / "teacher"), **SLURM) == 1
        assert len(programs.calls("teacher-server")) == 1
        assert not queued_again(programs)

    @pytest.mark.parametrize(("restarts", "again"), [("0", True), ("10", False)])
    def test_sigterm_reaches_the_rank_and_the_job_is_queued_again(
        self, programs, tmp_path, restarts, again
    ):
        kept = tmp_path / "kept"
        # The task's shell alone is told, which waits until the rank has kept its state.
        programs.add(
            "teacher-server",
            f"trap 'touch {kept}; exit 130' TERM; kill -TERM $PPID; while :; do sleep 0.01; done",
        )
        code = programs.run(
            ["bash", TEACHERS],
            OUT=str(tmp_path / "teacher"),
            SLURM_RESTART_COUNT=restarts,
            **SLURM,
        )
        assert code == 1
        assert kept.exists()
        assert len(programs.calls("teacher-server")) == 1
        assert queued_again(programs) == again


class TestStudent:
    def job(self, programs, out, **environment):
        return programs.run(["bash", STUDENT], OUT=str(out), **SLURM, **environment)

    def test_torchrun_starts_a_process_for_each_gpu_of_each_node(self, programs, tmp_path):
        out = tmp_path / "student"
        programs.add("torchrun", f"mkdir -p {out}; touch {out}/result.json")
        assert self.job(programs, out) == 0
        (words,) = programs.calls("torchrun")
        own, command = command_of(["torchrun", *words])
        assert (own["nnodes"], own["nproc_per_node"]) == ("2", "4")
        assert own["no_python"]
        # Rank 0 is on the node whose name comes first as text; the rendezvous is there, too.
        assert own["rdzv_endpoint"] == "node-10:29734"
        arguments = parsed(command)
        assert arguments["yes"]
        assert not arguments.get("resume", False)
        assert arguments["trainer"].answered_batch % 8 == 0
        assert arguments["trainer"].labelled_batch % 8 == 0
        assert not queued_again(programs)

    def test_a_job_that_is_begun_again_says_so(self, programs, tmp_path):
        (tmp_path / "config.toml").touch()
        programs.add("torchrun", f"touch {tmp_path}/result.json")
        assert self.job(programs, tmp_path) == 0
        (words,) = programs.calls("torchrun")
        assert parsed(command_of(["torchrun", *words])[1])["resume"]

    @pytest.mark.parametrize(
        ("left", "restarts", "again"),
        [("checkpoint.safetensors", "0", True), ("checkpoint.safetensors", "10", False),
         ("answers/requests/one.json", "0", True), ("config.toml", "0", False)],
    )  # fmt: skip
    def test_only_what_was_begun_is_queued_again(self, programs, tmp_path, left, restarts, again):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        programs.add("torchrun", f"touch {tmp_path}/{left}; exit 1")
        assert self.job(programs, tmp_path, SLURM_RESTART_COUNT=restarts) == 1
        assert queued_again(programs) == again


@pytest.mark.parametrize("begun", [False, True])
def test_a_comparison_is_dealt_by_seeds(programs, tmp_path, begun):
    out = tmp_path / "comparison"
    if begun:
        (tmp_path / "comparison-4").mkdir()
        (tmp_path / "comparison-4" / "config.toml").touch()
    programs.add("student-client")
    assert programs.run(["bash", COMPARISON], OUT=str(out), **SLURM) == 0
    (words,) = programs.calls("student-client")
    arguments = parsed(["student-client", *words])
    assert arguments["seeds"] == "4"
    assert arguments["out"] == tmp_path / "comparison-4"
    assert arguments.get("resume", False) == begun
    # Each job would choose, and pay for, queries of its own.
    assert arguments.get("remote") is None
