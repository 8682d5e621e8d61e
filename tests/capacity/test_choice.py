"""The layout that is chosen is never beaten by another that fits, whatever is asked for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.capacity.candidates import candidates
from w2s_ray.capacity.fit_gpus import choose_layout
from w2s_ray.capacity.gpu_types import Gpu, gpu_in, gpu_type, machines
from w2s_ray.capacity.layout import Constraints, Layout, Workload
from w2s_ray.catalog.shapes import Shape, shape_of
from w2s_ray.errors import InputError

CONFIGS = Path(__file__).parents[1] / "catalog" / "configs"
SIZES = ("0.5B", "3B", "7B", "14B", "32B")


def shape(size: str) -> Shape:
    return shape_of(json.loads((CONFIGS / f"Qwen2.5-{size}.json").read_text()))


SHAPES = {size: shape(size) for size in SIZES}
ADAPTERS = 20_000_000


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    size = draw(st.sampled_from(SIZES))
    trainable = draw(st.sampled_from(["full", "lora"]))
    batch, longest = draw(st.sampled_from([1, 6, 16, 64])), draw(st.sampled_from([128, 1024, 4096]))
    adapters = ADAPTERS if trainable == "lora" else 0
    mean = longest / draw(st.sampled_from([1, 2, 10]))
    return Workload(size, SHAPES[size], "bf16", trainable, batch, longest, mean, adapters)


@st.composite
def machine_types(draw: st.DrawFn) -> Gpu:
    name = draw(st.sampled_from(sorted(machines())))
    return gpu_in(machines()[name].gpu_type, name, machines()[name])


def needs_stage_3(limits: Constraints) -> bool:
    """Whether a spec that fixes another stage is refused before anything is planned."""
    return limits.offload == "parameters" or limits.on_disk


LIMITS = st.builds(
    Constraints,
    prefer=st.sampled_from(["cost", "time", "gpus"]),
    workers=st.sampled_from([None, None, 1, 4, 16]),
    max_workers=st.sampled_from([1, 4, 12, 64]),
    zero_stage=st.sampled_from([None, None, 1, 2, 3]),
    offload=st.sampled_from([None, None, None, "none", "optimizer", "parameters"]),
    activation_checkpointing=st.sampled_from([None, None, False, True]),
    micro_batch_tokens=st.sampled_from([None, None, 4096]),
    margin=st.sampled_from([0.0, 0.1, 0.3]),
    on_disk=st.booleans(),
    steps_at_once=st.sampled_from([None, 1, 3]),
).filter(lambda limits: limits.zero_stage in (None, 3) or not needs_stage_3(limits))


def fits(layout: Layout, gpu: Gpu, limits: Constraints) -> bool:
    """Whether every process of every step that may share its machine has room."""
    if layout.memory.total > gpu.usable(limits.margin):
        return False
    if limits.on_disk or layout.offload == "none":
        return True
    here = min(layout.workers, gpu.gpus_per_machine)
    steps = min(gpu.gpus_per_machine // here, limits.steps_at_once or 1_000)
    others = 4 << 30  # that a process needs besides
    return steps * here * (layout.memory.host + others) <= gpu.host_memory * (1 - limits.margin)


def spent(layout: Layout, limits: Constraints) -> float:
    return {
        "cost": layout.workers * layout.seconds,
        "time": layout.seconds,
        "gpus": layout.workers,
    }[limits.prefer]


def choice(workload: Workload, gpu: Gpu, limits: Constraints) -> Layout | None:
    try:
        return choose_layout(workload, gpu, limits)
    except InputError:
        return None


@given(workloads(), machine_types(), LIMITS)
def test_no_layout_that_fits_beats_the_choice(
    workload: Workload, gpu: Gpu, limits: Constraints
) -> None:
    every = [layout for group in candidates(workload, gpu, limits) for layout in group]
    fitting = [layout for layout in every if fits(layout, gpu, limits)]
    best = choice(workload, gpu, limits)
    if best is None:
        assert not fitting
        return
    assert fits(best, gpu, limits)
    least = min(spent(layout, limits) for layout in fitting)
    assert spent(best, limits) == least
    ties = [layout for layout in fitting if spent(layout, limits) == least]
    assert best.workers == min(layout.workers for layout in ties)


@given(workloads(), machine_types(), LIMITS)
def test_what_is_fixed_stays_fixed(workload: Workload, gpu: Gpu, limits: Constraints) -> None:
    best = choice(workload, gpu, limits)
    if best is None:
        return
    for field in (
        "workers", "zero_stage", "offload", "activation_checkpointing", "micro_batch_tokens"
    ):  # fmt: skip
        assert getattr(limits, field) in (None, getattr(best, field))
    assert limits.workers or best.workers <= limits.max_workers


@given(workloads(), machine_types(), LIMITS)
def test_freedom_and_memory_never_cost_more(
    workload: Workload, gpu: Gpu, limits: Constraints
) -> None:
    """More host memory, more memory on the GPU, a smaller margin, and one field less fixed."""
    best = choice(workload, gpu, limits)
    if best is None:
        return
    freer = [
        (replace(gpu, host_memory=2 * gpu.host_memory), limits),
        (replace(gpu, memory=gpu.memory + (8 << 30)), limits),
        (gpu, replace(limits, margin=limits.margin / 2)),
        (gpu, replace(limits, offload=None)),
        (gpu, replace(limits, activation_checkpointing=None)),
        (gpu, replace(limits, steps_at_once=1)),
    ]
    for other, fewer in freer:
        found = choice(workload, other, fewer)
        assert found is not None
        assert spent(found, limits) <= spent(best, limits)


@given(workloads(), machine_types())
def test_each_preference_is_the_best_in_its_own_terms(workload: Workload, gpu: Gpu) -> None:
    chosen = {
        prefer: choice(workload, gpu, Constraints(prefer=prefer))  # type: ignore[arg-type]
        for prefer in ("cost", "time", "gpus")
    }
    cost, time, gpus = chosen["cost"], chosen["time"], chosen["gpus"]
    if cost is None or time is None or gpus is None:
        assert not any(chosen.values())
        return
    assert cost.gpu_seconds <= min(time.gpu_seconds, gpus.gpu_seconds)
    assert time.seconds <= min(cost.seconds, gpus.seconds)
    assert gpus.workers <= min(cost.workers, time.workers)


@pytest.mark.parametrize("machine", ["g5.xlarge", "g5.16xlarge", "g5.48xlarge", "p5.48xlarge"])
def test_a_faster_network_never_costs_more(machine: str) -> None:
    gpu = gpu_in(machines()[machine].gpu_type, machine, machines()[machine])
    workload = Workload("14B", SHAPES["14B"], "bf16", "full", 16, 1024, 102)
    spent = [
        choose_layout(workload, replace(gpu, network=rate * 1e9), Constraints()).gpu_seconds
        for rate in (0.3, 1, 3, 10, 100)
    ]
    assert spent == sorted(spent, reverse=True)


def test_one_gpu_a_machine_is_not_eight() -> None:
    """The same GPUs: eight in one machine send over its links, one in each over the network."""
    workload = Workload("7B", SHAPES["7B"], "bf16", "full", 16, 1024, 102)
    fixed = Constraints(workers=8, offload="optimizer")
    eight = gpu_in("A10G", "g5.48xlarge", machines()["g5.48xlarge"])
    one = gpu_in("A10G", "g5.8xlarge", machines()["g5.8xlarge"])
    assert (
        choose_layout(workload, one, fixed).seconds
        > 2 * choose_layout(workload, eight, fixed).seconds
    )
    assert gpu_type("A10G").gpus_per_machine == 1  # as cluster.yaml has them
