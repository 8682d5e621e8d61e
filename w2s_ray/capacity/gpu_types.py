"""GPU types, read from ``gpu_types.json``: what a GPU holds and how fast it is."""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from w2s_ray.errors import InputError

OUTSIDE = 1 << 30  # bytes that CUDA and NCCL take beside torch's allocator


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a type.

    Attributes:
        memory: bytes in all.
        flops: peak of matrix products in each precision, operations a second.
        bandwidth: of its memory, bytes a second.
        link, network: what one GPU sends within its machine and to others, bytes a second.
        a_machine: GPUs of a machine.
        utilization: share of ``flops`` that training is assumed to reach.
        usd_an_hour: price, if the file has one.
    """

    name: str
    memory: int
    flops: dict[str, float]
    bandwidth: float
    link: float
    network: float
    a_machine: int
    utilization: float
    usd_an_hour: float | None

    def usable(self, margin: float) -> int:
        """Bytes that a plan may fill: ``margin`` (a share) and what CUDA takes stay free."""
        return int(self.memory * (1.0 - margin)) - OUTSIDE


@cache
def gpu_types() -> dict[str, Gpu]:
    """All known types by name."""
    content = json.loads(Path(__file__).with_name("gpu_types.json").read_text())
    return {
        name: Gpu(
            name=name,
            memory=int(entry["memory_mib"]) << 20,
            flops={kind: entry[f"{kind}_tflops"] * 1e12 for kind in ("bf16", "fp32")},
            bandwidth=entry["bandwidth_gb_s"] * 1e9,
            link=entry["link_gb_s"] * 1e9,
            network=entry["network_gb_s"] * 1e9,
            a_machine=int(content["gpus_a_machine"]),
            utilization=float(content["utilization"]),
            usd_an_hour=entry["usd_an_hour"],
        )
        for name, entry in content["types"].items()
    }


def gpu_type(name: str) -> Gpu:
    """The type of this name.

    Raises:
        InputError: there is none; the nearest name is told.
    """
    known = gpu_types()
    if name not in known:
        by_lower = {other.lower(): other for other in known}
        close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
        hint = f"; did you mean '{by_lower[close[0]]}'?" if close else ""
        raise InputError(
            f"execution.gpu_type: given '{name}', expected one of {', '.join(known)}{hint}",
            ("execution", "gpu_type"),
        )
    return known[name]
