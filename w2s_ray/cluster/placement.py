"""What steps need of a cluster, and whether they fit.

Tune, Train and Data each wait in silence for resources that will never come. So the sums are done
here: a plan that cannot be placed is refused before anything starts, and a step is handed out only
when its processes fit beside those that run.

All one-process steps of a run get one shape, the largest any of them asks for. Warm actors can
then serve every such step; with two shapes Tune would end an actor of one to start the other, and
its loaded models with it. Only the workers' own processes are counted: the trial that starts a
worker group and the tasks that feed it reserve no CPU (see ``launch``), hence cannot deadlock.

Where machines say of which type their GPUs are (``accelerator_type:H100`` among their resources),
a step that was planned for a type asks for it; Ray alone would look at the number of GPUs only.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._private.state import state as cluster_state

from w2s_ray.capacity.execution import Execution
from w2s_ray.errors import InputError
from w2s_ray.plan.step import Step

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # `ray up` leaves it on the head node
TOLERANCE = 1e-6
TYPE = "accelerator_type:"  # prefix of Ray's resources


@dataclass(frozen=True, slots=True)
class Need:
    """``workers`` processes, each with its CPUs and GPUs; fractions share a device."""

    workers: int
    cpus: float
    gpus: float
    gpu_type: str = ""  # "": any

    @property
    def process(self) -> dict[str, float]:
        """Ray resources of one process."""
        found = {"CPU": self.cpus}
        if self.gpus:
            found["GPU"] = self.gpus
        if self.gpu_type:
            found[TYPE + self.gpu_type] = 0.001
        return found

    def __str__(self) -> str:
        gpu = f"{self.gpus:g} {self.gpu_type} GPU".replace("  ", " ")
        each = f"{self.cpus:g} CPU" + (f" and {gpu}" if self.gpus else "")
        return f"{each} for each of {self.workers} processes" if self.workers > 1 else each


@dataclass(frozen=True, slots=True)
class Node:
    """A machine, there or to be started by an autoscaler."""

    cpus: float
    gpus: float
    gpu_types: frozenset[str] = frozenset()  # names that it goes by; none: it does not tell


def needs(steps: Mapping[str, Step], nodes: Sequence[Node]) -> dict[str, Need]:
    """What each step is given, by key: one shape for all that run in one process."""
    own = {key: need_of(step.execution, nodes) for key, step in steps.items()}
    alone = [need for need in own.values() if need.workers == 1]
    if not alone:
        return own
    shape = Need(
        1,
        max(need.cpus for need in alone),
        max(need.gpus for need in alone),
        max(need.gpu_type for need in alone),
    )
    return {key: shape if need.workers == 1 else need for key, need in own.items()}


def need_of(execution: Execution, nodes: Sequence[Node]) -> Need:
    """What a step's execution says; steps that say nothing need one CPU."""
    gpus = execution.gpus_per_worker
    gpu_type = _type_among(execution.gpu_type or "", nodes) if gpus else ""
    return Need(execution.workers, execution.cpus_per_worker, gpus, gpu_type)


def _type_among(gpu_type: str, nodes: Sequence[Node]) -> str:
    """The name by which these machines call a type; "" where none of them tells its type."""
    told = frozenset[str]().union(*(node.gpu_types for node in nodes))
    family = gpu_type.partition("-")[0]  # some call an A100-80G an A100
    return "" if not told else family if gpu_type not in told and family in told else gpu_type


def fits(wanted: Iterable[Need], nodes: Sequence[Node]) -> bool:
    """Whether all these can be placed at once: the largest first, each where least is left."""
    free = _free(nodes)
    largest_first = sorted(wanted, key=lambda need: (need.gpus, need.cpus), reverse=True)
    return all(_place(need, free) for need in largest_first)


def most_at_once(wanted: Iterable[Need], nodes: Sequence[Node]) -> int:
    """How many of these needs, the smallest first, can be placed at once."""
    free = _free(nodes)
    smallest_first = sorted(wanted, key=lambda need: need.workers * (need.gpus + need.cpus))
    return sum(1 for _ in takewhile(lambda need: _place(need, free), smallest_first))


@dataclass(slots=True)
class _Room:
    """What is free on a machine."""

    gpus: float
    cpus: float
    gpu_types: frozenset[str]

    def holds(self, need: Need) -> bool:
        enough = self.gpus + TOLERANCE >= need.gpus and self.cpus + TOLERANCE >= need.cpus
        return enough and (not need.gpu_type or need.gpu_type in self.gpu_types)


def _free(nodes: Sequence[Node]) -> list[_Room]:
    return [_Room(node.gpus, node.cpus, node.gpu_types) for node in nodes]


def _place(need: Need, free: list[_Room]) -> bool:
    """Takes the need out of ``free``, each process where least is left; False without room."""
    for _ in range(need.workers):
        rooms = [room for room in free if room.holds(need)]
        if not rooms:
            return False
        room = min(rooms, key=lambda room: (room.gpus, room.cpus))
        room.gpus -= need.gpus
        room.cpus -= need.cpus
    return True


def refuse_unplaceable(steps: Mapping[str, Step], nodes: Sequence[Node]) -> None:
    """Looks at what each step asks for, then at what it is given.

    Raises:
        InputError: a step fits the cluster at no time, not even alone.
    """
    examples: dict[Need, Step] = {}
    for step in steps.values():
        examples.setdefault(need_of(step.execution, nodes), step)
    for key, need in needs(steps, nodes).items():
        examples.setdefault(need, steps[key])
    for need, step in examples.items():
        if not fits([need], nodes):
            raise InputError(
                f"execution: the step {step.kind} {step.slug} needs {need}, and the cluster has "
                f"{_describe(nodes)}; {_remedy(step, nodes)}"
            )


def _remedy(step: Step, nodes: Sequence[Node]) -> str:
    """What can be done about it; a world that was planned for a GPU type has another knob."""
    if step.execution.gpu_type is None or step.execution.workers == 1:
        return "lower workers, cpus_per_worker or gpus_per_worker, or add machines"
    own = step.execution
    gpus = int(sum(node.gpus for node in nodes))
    return (
        f"fewer GPUs hold the model only with max_workers: {max(1, gpus)}, if it fits so (--plan "
        f"tells), or with a larger gpu_type than {own.gpu_type}; or add machines"
    )


def cluster_nodes() -> list[Node]:
    """The machines of the connected cluster, and those that its autoscaler may still start.

    Machines that it has started already may be counted twice; a trial then waits a little for
    resources that are in use, which does no harm.
    """
    alive = [node["Resources"] for node in _nodes() if node["Alive"]]
    return [
        Node(
            float(resources.get("CPU", 0)),
            float(resources.get("GPU", 0)),
            frozenset(name.removeprefix(TYPE) for name in resources if name.startswith(TYPE)),
        )
        for resources in [*alive, *_startable(_node_types())]
    ]


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def _node_types() -> list[tuple[Mapping[str, Any], int]]:
    """(resources of one machine, largest number of them) of each type that can be started."""
    config = cluster_state.get_cluster_config()  # reported by KubeRay and hosted autoscalers
    if config is not None and config.node_group_configs:
        return [
            (group.resources, group.max_count if group.max_count >= 0 else 1000)
            for group in config.node_group_configs
        ]
    path = BOOTSTRAP.expanduser()
    if not os.environ.get("RAY_ADDRESS") or not path.exists():  # a Ray of our own does not grow
        return []
    types = yaml.safe_load(path.read_text()).get("available_node_types", {})
    return [(kind.get("resources", {}), kind.get("max_workers", 0)) for kind in types.values()]


def _startable(types: Iterable[tuple[Mapping[str, Any], int]]) -> list[Mapping[str, Any]]:
    return [resources for resources, count in types for _ in range(count)]


def _describe(nodes: Sequence[Node]) -> str:
    machines = f"{len(nodes)} machine{'s' * (len(nodes) != 1)}"
    if types := sorted(frozenset[str]().union(*(node.gpu_types for node in nodes))):
        machines += f" ({', '.join(types)})"
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"{cpus:g} CPU and {gpus:g} GPU on {machines}"
