"""Resources that steps need of a cluster, and whether they fit.

Tune, Train and Data each wait without a message for resources that will never become available. So
the check is made here: a plan that cannot be placed is refused before anything starts, and a step
is started only when its processes fit beside those that run.

All one-process steps of a run get the same resources, the largest that any of them asks for. Every
warm actor can then run every such step; with two sizes Tune would end an actor of one size, and
discard its loaded models, to start an actor of the other. Only the workers' own processes are
counted: the trial that starts a worker group and the tasks that feed it reserve no CPU (see
``launch``), hence cannot deadlock.

Where machines declare the type of their GPUs (``accelerator_type:H100`` among their resources),
a step that was planned for a type asks for it; Ray by itself compares only the number of GPUs.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import ray
import yaml

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.machines import BOOTSTRAP
from w2s_ray.cluster.environment import ADDRESS
from w2s_ray.cluster.ray_internals import autoscaler_config
from w2s_ray.errors import InputError
from w2s_ray.plan.step import Step

TOLERANCE = 1e-6
TYPE_PREFIX = "accelerator_type:"  # of the resource by which Ray marks a type
NO_LIMIT = 1000  # machines to assume where an autoscaler's group has no upper limit


@dataclass(frozen=True, slots=True)
class Need:
    """Resources of one step.

    Attributes:
        workers: number of processes.
        cpus, gpus: of each process; fractions share a device.
        gpu_type: name by which the cluster's machines declare the type; "": any.
        pooled: whether processes of their own compute it, which no warm actor does.
    """

    workers: int
    cpus: float
    gpus: float
    gpu_type: str = ""
    pooled: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether it runs in the process of its trial, a warm actor."""
        return self.workers == 1 and not self.pooled

    @property
    def process(self) -> dict[str, float]:
        """Ray resources of one process."""
        resources = {"CPU": self.cpus}
        if self.gpus:
            resources["GPU"] = self.gpus
        if self.gpu_type:
            resources[TYPE_PREFIX + self.gpu_type] = 0.001
        return resources

    def __str__(self) -> str:
        gpu = f"{self.gpus:g} {self.gpu_type} GPU".replace("  ", " ")
        each = f"{self.cpus:g} CPU" + (f" and {gpu}" if self.gpus else "")
        return f"{each} for each of {self.workers} processes" if self.workers > 1 else each


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that runs, or that an autoscaler can start.

    Attributes:
        gpu_types: names of its GPU type; empty where it declares none.
    """

    cpus: float
    gpus: float
    gpu_types: frozenset[str] = frozenset()


def needs(steps: Mapping[str, Step], nodes: Sequence[Node]) -> dict[str, Need]:
    """Resources to reserve for each step, by key: the same for all that run in one process."""
    own = {key: need_of(step.execution, nodes) for key, step in steps.items()}
    alone = [need for need in own.values() if need.is_alone]
    if not alone:
        return own
    shared = Need(
        1,
        max(need.cpus for need in alone),
        max(need.gpus for need in alone),
        max(need.gpu_type for need in alone),
    )
    return {key: shared if need.is_alone else need for key, need in own.items()}


def need_of(execution: Execution, nodes: Sequence[Node]) -> Need:
    """Resources that a step's execution asks for; by default one CPU."""
    gpus = execution.gpus_per_worker * execution.inference_gpus
    gpu_type = _declared_type(execution.gpu_type or "", nodes) if gpus else ""
    cpus, pooled = execution.cpus_per_worker, execution.is_pooled
    return Need(execution.processes, cpus, gpus, gpu_type, pooled)


def _declared_type(gpu_type: str, nodes: Sequence[Node]) -> str:
    """The name by which these machines declare a type; "" where none declares any."""
    declared = frozenset[str]().union(*(node.gpu_types for node in nodes))
    if not declared:
        return ""
    family = gpu_type.partition("-")[0]  # some declare an A100-80G as A100
    return family if gpu_type not in declared and family in declared else gpu_type


def fits(wanted: Iterable[Need], nodes: Sequence[Node]) -> bool:
    """Whether all these can be placed at once: best fit, the largest first."""
    free = _free(nodes)
    largest_first = sorted(wanted, key=lambda need: (need.gpus, need.cpus), reverse=True)
    return all(_place(need, free) for need in largest_first)


def most_at_once(wanted: Iterable[Need], nodes: Sequence[Node]) -> int:
    """How many of these needs, the smallest first, can be placed at once."""
    free = _free(nodes)
    smallest_first = sorted(wanted, key=lambda need: need.workers * (need.gpus + need.cpus))
    return sum(1 for _ in takewhile(lambda need: _place(need, free), smallest_first))


def slots(need: Need, nodes: Sequence[Node], limit: int) -> int:
    """How often one need can be placed at once, counted up to ``limit``."""
    free = _free(nodes)
    return sum(1 for _ in takewhile(lambda _: _place(need, free), range(limit)))


@dataclass(slots=True)
class _FreeNode:
    """Free resources of a machine."""

    gpus: float
    cpus: float
    gpu_types: frozenset[str]

    def holds(self, need: Need) -> bool:
        enough = self.gpus + TOLERANCE >= need.gpus and self.cpus + TOLERANCE >= need.cpus
        return enough and (not need.gpu_type or need.gpu_type in self.gpu_types)


def _free(nodes: Sequence[Node]) -> list[_FreeNode]:
    return [_FreeNode(node.gpus, node.cpus, node.gpu_types) for node in nodes]


def _place(need: Need, free: list[_FreeNode]) -> bool:
    """Subtracts the need from ``free``, best fit for each process; False if one does not fit."""
    for _ in range(need.workers):
        candidates = [node for node in free if node.holds(need)]
        if not candidates:
            return False
        tightest = min(candidates, key=lambda node: (node.gpus, node.cpus))
        tightest.gpus -= need.gpus
        tightest.cpus -= need.cpus
    return True


def refuse_unplaceable(steps: Mapping[str, Step], nodes: Sequence[Node]) -> None:
    """Checks what each step asks for, then what is to be reserved for it.

    Raises:
        InputError: a step does not fit the cluster even when nothing else runs.
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
    """What the user can change; a layout planned for a GPU type is limited by max_workers."""
    if (gpus := step.execution.inference_gpus) > 1:
        return f"add machines with {gpus} GPUs each, or choose a larger gpu_type"
    if step.execution.inference_workers > 1:
        return "lower inference_workers, cpus_per_worker or gpus_per_worker, or add machines"
    if step.execution.gpu_type is None or step.execution.workers == 1:
        return "lower workers, cpus_per_worker or gpus_per_worker, or add machines"
    gpus = int(sum(node.gpus for node in nodes))
    return (
        f"lower max_workers to {max(1, gpus)} if the model then still fits (see --plan), choose a "
        f"larger gpu_type than {step.execution.gpu_type}, or add machines"
    )


def cluster_nodes() -> list[Node]:
    """The machines of the connected cluster, and those that its autoscaler can start.

    Machines that the autoscaler has already started may be counted twice; a trial then waits a
    little for resources that are in use, which does no harm.
    """
    alive = [node["Resources"] for node in _nodes() if node["Alive"]]
    return [
        Node(
            float(resources.get("CPU", 0)),
            float(resources.get("GPU", 0)),
            frozenset(
                name.removeprefix(TYPE_PREFIX) for name in resources if name.startswith(TYPE_PREFIX)
            ),
        )
        for resources in [*alive, *_startable(_node_types())]
    ]


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def _node_types() -> list[tuple[Mapping[str, Any], int]]:
    """(resources of one machine, largest number of them) of each type that can be started."""
    config = autoscaler_config()
    if config is not None and config.node_group_configs:
        return [
            (group.resources, group.max_count if group.max_count >= 0 else NO_LIMIT)
            for group in config.node_group_configs
        ]
    path = BOOTSTRAP.expanduser()
    if not os.environ.get(ADDRESS) or not path.exists():  # a Ray of our own does not grow
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
