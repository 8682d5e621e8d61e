"""The GPUs that a study is planned for: their type, the machines they are in, and the price.

The machine type is the one in ``execution.machine``, else that of the cluster's file, else the
usual one of the GPU type. What ``execution.machine`` gives replaces what is listed for the type. A
price is given there, or in the environment:

    W2S_USD_PER_HOUR="p5.48xlarge=31.5 g5.4xlarge=1.2"   dollars per hour of whole machines
    W2S_CLUSTER=cluster.yaml                             the file of Ray's cluster launcher

Without ``W2S_CLUSTER`` the file is the one that ``ray up`` writes on the head node.
"""

import os
from pathlib import Path
from typing import NamedTuple

import yaml

from w2s_ray.capacity.gpu_types import Gpu, Machine, gpu_in, gpu_type, machines, unknown_name
from w2s_ray.errors import InputError
from w2s_ray.spec.execution import Execution
from w2s_ray.spec.execution import Machine as WrittenMachine

PRICES, CLUSTER = "W2S_USD_PER_HOUR", "W2S_CLUSTER"
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # `ray up` writes it to the head node


class ClusterMachine(NamedTuple):
    """A machine type that a cluster can start.

    Attributes:
        name: of the type.
        most: how many of them there may be.
    """

    name: str
    most: int


def planned_gpu(execution: Execution) -> Gpu | None:
    """The GPUs to plan for; None without a ``gpu_type``.

    Raises:
        InputError: a name, price or file is wrong; ``place`` names the field.
    """
    if execution.gpu_type is None:
        return None
    usual, written = gpu_type(execution.gpu_type), execution.machine
    in_cluster = cluster_machine(usual.name)
    name = written.name or (in_cluster.name if in_cluster else usual.machine)
    machine = _machine(name, written, usual.name)
    price = _prices().get(name) if written.usd_per_hour is None else written.usd_per_hour
    return gpu_in(usual.name, name, machine, price)


def _machine(name: str, written: WrittenMachine, gpu: str) -> Machine:
    """The listed type with what the spec gives in place of what is listed."""
    given = written.gpus, written.host_memory_gib, written.network_gbit_s
    listed = machines().get(name)
    if listed is None:
        if None in given:
            raise unknown_name("machine", name, machines())
        listed = Machine(gpu, 1, 1.0, 1.0)
    if listed.gpu_type != gpu:
        raise InputError(
            f"execution.machine: given '{name}', which has GPUs of type {listed.gpu_type}, "
            f"expected a machine with {gpu}: {', '.join(_with(gpu))}",
            ("execution", "machine"),
        )
    return Machine(
        gpu,
        written.gpus or listed.gpus,
        written.host_memory_gib or listed.host_memory_gib,
        written.network_gbit_s or listed.network_gbit_s,
    )


def _with(gpu: str) -> list[str]:
    return [name for name, machine in machines().items() if machine.gpu_type == gpu]


def _prices() -> dict[str, float]:
    """Dollars per hour by machine type, of the environment."""
    prices = {}
    for item in os.environ.get(PRICES, "").replace(",", " ").split():
        name, _, price = item.partition("=")
        try:
            prices[name] = float(price)
        except ValueError:
            prices[name] = -1.0
        if not 0.0 <= prices[name] < float("inf"):
            raise InputError(f"{PRICES}: given '{item}', expected MACHINE=USD, p5.48xlarge=31.5")
    return prices


def cluster_machine(gpu: str) -> ClusterMachine | None:
    """The type of the cluster's file that has GPUs of this type, the largest if there are some.

    Raises:
        InputError: the file that the environment names cannot be read.
    """
    found = [kind for kind in _cluster_machines() if machines()[kind.name].gpu_type == gpu]
    return max(found, key=lambda kind: machines()[kind.name].gpus, default=None)


def machine_limit(gpu: Gpu) -> int | None:
    """How many of its machines the cluster may have; None: no file says."""
    found = cluster_machine(gpu.name)
    return found.most if found and found.name == gpu.machine else None


def _cluster_machines() -> list[ClusterMachine]:
    """The types that may be started and are listed in ``gpu_types.json``."""
    path = os.environ.get(CLUSTER)
    if path is None and not BOOTSTRAP.expanduser().exists():
        return []
    try:
        content = yaml.safe_load((Path(path) if path else BOOTSTRAP).expanduser().read_text())
        types = [
            ClusterMachine(
                str((kind.get("node_config") or {}).get("InstanceType")),
                int(kind.get("max_workers", 0)),
            )
            for kind in content["available_node_types"].values()
        ]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{CLUSTER}: given '{path or BOOTSTRAP}', expected a cluster file of Ray, a readable "
            "one with available_node_types"
        ) from None
    return [kind for kind in types if kind.name in machines() and kind.most > 0]
