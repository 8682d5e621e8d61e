"""GPU types and the machines that have them, read from ``gpu_types.json``: memory and speed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from w2s_ray.capacity.memory import GIB
from w2s_ray.errors import InputError

CUDA_CONTEXT_BYTES = GIB  # what CUDA and NCCL take outside torch's allocator
PROCESS_HOST_BYTES = 4 * GIB  # what Python, torch and CUDA take of host memory


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a type, and the machine it is in.

    Attributes:
        memory: bytes in all.
        flops: peak of matrix products in each precision, operations per second.
        bandwidth: of its memory, bytes per second.
        link: what it sends to others in its machine, bytes per second.
        utilization: share of ``flops`` that training is assumed to reach.
        machine: name of the machine's type.
        gpus_per_machine: GPUs of the machine.
        host_memory: of the machine, bytes.
        network: what the machine sends to others, bytes per second. In a ring of processes every
            byte leaves a machine once, however many of its GPUs take part.
        usd_per_hour: price of one GPU, its share of the machine's; None: unknown.
    """

    name: str
    memory: int
    flops: dict[str, float]
    bandwidth: float
    link: float
    utilization: float
    machine: str
    gpus_per_machine: int
    host_memory: int
    network: float
    usd_per_hour: float | None = None

    def usable(self, margin: float) -> int:
        """Bytes that a layout may fill: ``margin`` (a share) and CUDA's own part stay free."""
        return int(self.memory * (1.0 - margin)) - CUDA_CONTEXT_BYTES

    def usable_host(self, margin: float, workers: int, steps_at_once: int | None = None) -> int:
        """Bytes of host memory that each of a step's processes may fill with offloaded state.

        Steps of as many processes fill the other GPUs of the machine, since Ray places them by the
        number of GPUs alone.

        Args:
            margin: share of the machine's memory that stays free.
            workers: processes of the step; no more than the machine's GPUs are in one machine.
            steps_at_once: how many steps may run at once; None: as many as fit.
        """
        here = min(workers, self.gpus_per_machine)
        steps = self.gpus_per_machine // here
        processes = here * (steps if steps_at_once is None else min(steps, steps_at_once))
        return int(self.host_memory * (1.0 - margin)) // processes - PROCESS_HOST_BYTES


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type.

    Attributes:
        gpus: how many GPUs it has.
        host_memory_gib: GiB of memory.
        network_gbit_s: Gbit per second that it sends to others.
    """

    gpu_type: str
    gpus: int
    host_memory_gib: float
    network_gbit_s: float


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("gpu_types.json").read_text())
    return content


@cache
def machines() -> dict[str, Machine]:
    """All machine types of ``gpu_types.json`` by name."""
    return {name: Machine(**entry) for name, entry in _content()["machines"].items()}


@cache
def gpu_types() -> dict[str, Gpu]:
    """All types of ``gpu_types.json`` by name, each in its usual machine."""
    return {
        name: gpu_in(name, entry["machine"], machines()[entry["machine"]])
        for name, entry in _content()["types"].items()
    }


def gpu_in(name: str, machine_name: str, machine: Machine, usd: float | None = None) -> Gpu:
    """The GPU type ``name`` in such a machine, which costs ``usd`` per hour as a whole."""
    content = _content()
    entry = content["types"][name]
    return Gpu(
        name=name,
        memory=int(entry["memory_mib"]) << 20,
        flops={kind: entry[f"{kind}_tflops"] * 1e12 for kind in ("bf16", "fp32")},
        bandwidth=entry["bandwidth_gb_s"] * 1e9,
        link=entry["link_gb_s"] * 1e9,
        utilization=float(content["utilization"]),
        machine=machine_name,
        gpus_per_machine=machine.gpus,
        host_memory=int(machine.host_memory_gib * GIB),
        network=machine.network_gbit_s * 1e9 / 8 * content["network_utilization"],
        usd_per_hour=None if usd is None else usd / machine.gpus,
    )


def gpu_type(name: str) -> Gpu:
    """The type of this name in its usual machine.

    Raises:
        InputError: there is none; the message suggests the nearest name.
    """
    types = gpu_types()
    if name not in types:
        raise unknown_name("gpu_type", name, types)
    return types[name]


def unknown_name(field: str, name: str, known: Iterable[str]) -> InputError:
    """The error of a field of ``execution`` that names nothing known."""
    by_lower = {other.lower(): other for other in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
    hint = f"; did you mean '{by_lower[close[0]]}'?" if close else ""
    expected = f"expected one of {', '.join(by_lower.values())}{hint}"
    return InputError(f"execution.{field}: given '{name}', {expected}", ("execution", field))
