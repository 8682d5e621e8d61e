"""The planner's layouts for training the Qwen2.5 family, as Markdown tables.

    python -m benchmarks.worlds                    # for H100 and H200
    python -m benchmarks.worlds L40S g5.48xlarge   # other GPU or machine types of gpu_types.json

Full training in bf16, batches of 16 pairs of at most 512 tokens, 10 % of a GPU's memory free.
Nothing is measured. The tables in docs/cluster.md are this program's output.
"""

import sys
from collections.abc import Iterator, Sequence

from w2s_ray.capacity.fit_gpus import choose_layout
from w2s_ray.capacity.gpu_types import Gpu, gpu_in, gpu_type, machines
from w2s_ray.capacity.layout import Constraints, Workload, figure
from w2s_ray.catalog.configs import published_models
from w2s_ray.catalog.shapes import shape_of
from w2s_ray.errors import InputError
from w2s_ray.plan.cost import TOKENS_PER_ROW

SIZES = ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")
BATCH_SIZE, MAX_LENGTH_TOKENS = 16, 512
HEADER = (
    "| model | parameters | GPUs | ZeRO | recomputed | offloaded | tokens per micro-batch "
    "| GiB per GPU | s per update | why |"
)


def lines(gpu: Gpu) -> Iterator[str]:
    """The table for one type, line by line."""
    usable = gpu.usable(Constraints().margin) / 2**30
    yield (
        f"**{gpu.name}** in a {gpu.machine} ({gpu.gpus_per_machine} of them and "
        f"{gpu.host_memory / 2**30:,.0f} GiB), {gpu.memory / 2**30:.1f} GiB, of which a plan fills "
        f"{usable:.1f}:"
    )
    yield ""
    yield HEADER
    yield "|---|--:|--:|--:|---|---|--:|--:|--:|---|"
    published = published_models()
    for size in SIZES:
        shape = shape_of(published[f"Qwen/Qwen2.5-{size}"])
        longest, mean = 2 * MAX_LENGTH_TOKENS, TOKENS_PER_ROW["preference"]
        workload = Workload(size, shape, "bf16", "full", BATCH_SIZE, longest, mean)
        try:
            layout = choose_layout(workload, gpu, Constraints())
        except InputError:
            yield f"| Qwen2.5-{size} | {shape.parameters / 1e9:.2f} B |" + " – |" * 7 + " no fit |"
            continue
        cells = (
            f"Qwen2.5-{size}",
            f"{shape.parameters / 1e9:.2f} B",
            str(layout.workers),
            str(layout.zero_stage) if layout.workers > 1 or layout.offload != "none" else "–",
            "yes" if layout.activation_checkpointing else "no",
            layout.offload,
            f"{layout.micro_batch_tokens:,}",
            f"{layout.memory.total / 2**30:.1f}",
            figure(layout.seconds),
            layout.why,
        )
        yield f"| {' | '.join(cells)} |"


def main(names: Sequence[str]) -> None:
    """Print one table for each GPU type."""
    for name in names or ("H100", "H200"):
        kind = machines().get(name)
        gpu = gpu_type(name) if kind is None else gpu_in(kind.gpu_type, name, kind)
        print("\n".join(lines(gpu)), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
