"""Starts a command as ranks on a Ray cluster, as torchrun would on hosts of its own.

    python launch.py --processes 8 --gpus 1 --cpus 8 -- student-client train HOST:PORT --out OUT …

One actor a process, all placed at once (a placement group) and as close together as fits. Each runs
the command with torchrun's variables in its environment. When one fails, or its host is lost, the
others are told to stop and all are begun again, with a restart count from which a training knows to
go on by itself. SIGTERM and ctrl-C end the processes in the same way, once and for all.

Needs `ray` and the command on every node, and paths that mean the same on each of them.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

Environment = dict[str, str]


def environments(
    nodes: Sequence[str], address: str, port: int, restart: int, restarts: int
) -> list[Environment]:
    """What torchrun would set for each of the processes, in their order.

    nodes: on which node each of them is; those of one node get ranks that follow one another, and
    the first process is rank 0. address, port: where rank 0 listens. restart: 0 at first, of
    `restarts` at most.
    """
    groups = list(dict.fromkeys(nodes))
    counts = [sum(node == group for node in nodes) for group in groups]
    found: list[Environment] = []
    for number, node in enumerate(nodes):
        group = groups.index(node)
        local = sum(other == node for other in nodes[:number])
        values = {
            "RANK": sum(counts[:group]) + local,
            "WORLD_SIZE": len(nodes),
            "LOCAL_RANK": local,
            "LOCAL_WORLD_SIZE": counts[group],
            "GROUP_RANK": group,
            "GROUP_WORLD_SIZE": len(groups),
            "MASTER_ADDR": address,
            "MASTER_PORT": port,
            "TORCHELASTIC_RESTART_COUNT": restart,
            "TORCHELASTIC_MAX_RESTARTS": restarts,
        }
        found.append({name: str(value) for name, value in values.items()})
    return found


class Process:
    """One rank, in an actor. `run` blocks; `stop` comes in another thread of the actor."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def place(self) -> tuple[str, str, int]:
        """The node's id and address, and a port that was free a moment ago."""
        import ray

        address = ray.util.get_node_ip_address()
        with socket.socket() as free:
            free.bind(("", 0))
            port = int(free.getsockname()[1])
        return ray.get_runtime_context().get_node_id(), address, port

    def run(self, command: Sequence[str], environment: Environment) -> int:
        """The command's exit code; below 0 minus the signal that killed it."""
        self._process = subprocess.Popen(command, env={**os.environ, **environment})
        # `stop` may have come before there was anything to stop.
        if self._stopped:
            self._process.terminate()
        return self._process.wait()

    def stop(self, grace: float) -> None:
        """SIGTERM, by which a training finishes its step and keeps its state; then SIGKILL."""
        self._stopped = True
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()


def attempt(
    group: Any, command: Sequence[str], options: argparse.Namespace, restart: int
) -> str | None:
    """Runs all processes once; why they failed, None where they did not."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    actor = ray.remote(max_concurrency=2, max_restarts=0)(Process)
    # A group that lost a node is placed anew.
    ray.get(group.ready())
    actors = [
        actor.options(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=bundle
            ),
        ).remote()
        for bundle in range(options.processes)
    ]
    running: dict[Any, int] = {}
    try:
        places = ray.get([one.place.remote() for one in actors])
        _, address, port = places[0]
        nodes = [node for node, _, _ in places]
        settings = environments(nodes, address, port, restart, options.max_restarts)
        for one, environment in zip(actors, settings, strict=True):
            running[one.run.remote(list(command), environment)] = int(environment["RANK"])
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            rank = running.pop(ended)
            code = ray.get(ended)
            if code:
                return f"rank {rank} ended with code {code}"
    except ray.exceptions.RayError as error:
        return f"a process is lost: {error}"
    finally:
        # A host that is lost never answers.
        stopping = [one.stop.remote(options.grace) for one in actors] if running else []
        ray.wait(stopping, num_returns=len(stopping), timeout=options.grace + 10)
        for one in actors:
            ray.kill(one)
    return None


def launch(command: Sequence[str], options: argparse.Namespace) -> int:
    """The exit code: 0 once an attempt has ended well, 1 where none did, 130 if told to stop."""
    import ray

    ray.init(address=options.address)
    # ray's own handler would end this process at once, and with it the others.
    signal.signal(signal.SIGTERM, _terminated)
    group = ray.util.placement_group(
        [{"CPU": options.cpus, "GPU": options.gpus}] * options.processes, strategy="PACK"
    )
    try:
        for restart in range(options.max_restarts + 1):
            failure = attempt(group, command, options, restart)
            if failure is None:
                return 0
            print(f"attempt {restart + 1}: {failure}", file=sys.stderr)
            # Nodes that are gone may still be listed for a moment.
            time.sleep(1)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        ray.util.remove_placement_group(group)


def _terminated(number: int, frame: FrameType | None) -> None:
    """As ctrl-C, once."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the command behind `--`; ends the program where there is none."""
    parser = argparse.ArgumentParser(
        description="Starts a command as ranks on a Ray cluster.",
        usage="%(prog)s [options] -- COMMAND …",
    )
    parser.add_argument("--address", default="auto", help="of the cluster, as ray.init takes it")
    parser.add_argument("--processes", type=int, required=True, help="ranks, of all nodes together")
    parser.add_argument("--gpus", type=float, default=0, help="of each process")
    parser.add_argument("--cpus", type=float, default=1, help="of each process")
    parser.add_argument("--max-restarts", type=int, default=3, help="after a failure, of all ranks")
    parser.add_argument(
        "--grace", type=float, default=150, help="seconds from SIGTERM until a process is killed"
    )
    own, found, command = list(arguments), "--" in arguments, []
    if found:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
    options = parser.parse_args(own)
    if not command:
        parser.error("a command is needed behind --")
    if options.processes < 1:
        parser.error("--processes must be at least 1")
    return options, command


if __name__ == "__main__":
    given, the_command = parsed(sys.argv[1:])
    sys.exit(launch(the_command, given))
