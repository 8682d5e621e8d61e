"""The planner's layouts for training the Qwen2.5 family, as Markdown tables.

    python -m benchmarks.worlds               # for H100 and H200
    python -m benchmarks.worlds L40S B200     # for other types of capacity/gpu_types.json

Full training in bf16, batches of 16 pairs of at most 512 tokens, 10 % of a GPU's memory free.
Nothing is measured. The tables in docs/cluster.md are this program's output.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from w2s_ray.capacity.fit_gpus import Wishes, Work, choose
from w2s_ray.capacity.gpu_types import Gpu, gpu_type
from w2s_ray.capacity.speed import seconds_an_update
from w2s_ray.catalog import architecture
from w2s_ray.catalog.architecture import shape_of
from w2s_ray.plan.cost import TOKENS_A_ROW

SIZES = ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")
BATCH_SIZE, MAX_LENGTH_TOKENS = 16, 512
HEADER = (
    "| model | parameters | GPUs | ZeRO | recomputed | offloaded | tokens a pass "
    "| GiB a GPU | s an update | why |"
)


def lines(gpu: Gpu) -> Iterator[str]:
    """The table for one GPU type, line by line."""
    usable = gpu.usable(Wishes().margin) / 2**30
    yield f"**{gpu.name}**, {gpu.memory / 2**30:.1f} GiB, of which a plan fills {usable:.1f}:"
    yield ""
    yield HEADER
    yield "|---|--:|--:|--:|---|---|--:|--:|--:|---|"
    known = json.loads(Path(architecture.__file__).with_name("architectures.json").read_text())
    for size in SIZES:
        shape = shape_of(known["models"][f"Qwen/Qwen2.5-{size}"])
        work = Work(size, shape, "bf16", "full", BATCH_SIZE, 2 * MAX_LENGTH_TOKENS)
        way = choose(work, gpu, Wishes())
        row_tokens = TOKENS_A_ROW["preference"]
        seconds = seconds_an_update(
            shape,
            gpu,
            precision="bf16",
            tokens=BATCH_SIZE * row_tokens,
            row_tokens=row_tokens,
            world=way.workers,
            stage=way.zero_stage,
            pass_tokens=way.micro_batch_tokens,
            offload=way.offload,
            recomputed=way.activation_checkpointing,
        )
        cells = (
            f"Qwen2.5-{size}",
            f"{shape.parameters / 1e9:.2f} B",
            str(way.workers),
            str(way.zero_stage) if way.workers > 1 or way.offload != "none" else "–",
            "yes" if way.activation_checkpointing else "no",
            way.offload,
            f"{way.micro_batch_tokens:,}",
            f"{way.memory.total / 2**30:.1f}",
            f"{seconds:.2g}",
            way.why,
        )
        yield f"| {' | '.join(cells)} |"


def main(names: Sequence[str]) -> None:
    """Print one table for each GPU type."""
    for name in names or ("H100", "H200"):
        print("\n".join(lines(gpu_type(name))), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
