"""GPU types, read from ``gpu_types.json``: memory, speed and price of one GPU."""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from w2s_ray.capacity.memory import GIB
from w2s_ray.errors import InputError

CUDA_CONTEXT_BYTES = GIB  # what CUDA and NCCL take outside torch's allocator


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a type.

    Attributes:
        memory: bytes in all.
        flops: peak of matrix products in each precision, operations per second.
        bandwidth: of its memory, bytes per second.
        link, network: what one GPU sends within its machine and to others, bytes per second.
        gpus_per_machine: GPUs of a machine.
        utilization: share of ``flops`` that training is assumed to reach.
        usd_per_hour: price; None where the file gives none.
    """

    name: str
    memory: int
    flops: dict[str, float]
    bandwidth: float
    link: float
    network: float
    gpus_per_machine: int
    utilization: float
    usd_per_hour: float | None

    def usable(self, margin: float) -> int:
        """Bytes that a layout may fill: ``margin`` (a share) and CUDA's own part stay free."""
        return int(self.memory * (1.0 - margin)) - CUDA_CONTEXT_BYTES


@cache
def gpu_types() -> dict[str, Gpu]:
    """All types of ``gpu_types.json`` by name."""
    content = json.loads(Path(__file__).with_name("gpu_types.json").read_text())
    return {
        name: Gpu(
            name=name,
            memory=int(entry["memory_mib"]) << 20,
            flops={kind: entry[f"{kind}_tflops"] * 1e12 for kind in ("bf16", "fp32")},
            bandwidth=entry["bandwidth_gb_s"] * 1e9,
            link=entry["link_gb_s"] * 1e9,
            network=entry["network_gb_s"] * 1e9,
            gpus_per_machine=int(content["gpus_per_machine"]),
            utilization=float(content["utilization"]),
            usd_per_hour=entry["usd_per_hour"],
        )
        for name, entry in content["types"].items()
    }


def gpu_type(name: str) -> Gpu:
    """The type of this name.

    Raises:
        InputError: there is none; the message suggests the nearest name.
    """
    types = gpu_types()
    if name not in types:
        by_lower = {other.lower(): other for other in types}
        close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
        hint = f"; did you mean '{by_lower[close[0]]}'?" if close else ""
        raise InputError(
            f"execution.gpu_type: given '{name}', expected one of {', '.join(types)}{hint}",
            ("execution", "gpu_type"),
        )
    return types[name]
