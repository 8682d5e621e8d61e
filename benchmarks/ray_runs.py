"""Rows on what Ray costs: one run against ``--local``, and steps that compute nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measure import Row, alternate, share, stopwatch
from benchmarks.options import Options
from benchmarks.sides import REPOSITORY
from benchmarks.studies import emptied, quickstart
from w2s_ray.plan.configs import Config
from w2s_ray.plan.step import Kind, Step

START_SECONDS = 8.0  # of Ray; beyond them a run may take a tenth longer
EMPTY_STEPS = 10_000
KIND = Kind("student", 1, "")


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
    steps = {str(n): Step(KIND, str(n), "empty", NoConfig(), {}) for n in range(count)}
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


class NoConfig(Config):
    """Nothing to say."""

    def as_json(self) -> dict[str, Any]:
        return {}


def _milliseconds(options: Options, steps: Mapping[str, Step]) -> float:
    from w2s_ray.cluster.tune_run import run

    began = time.perf_counter()
    schedule = run(steps, str(options.scratch / "empty-steps-store"), execute=_nothing)
    assert len(schedule.done) == len(steps)
    return 1000 * (time.perf_counter() - began) / len(steps)


def _nothing(step: Step, store: Any, context: Any) -> dict[str, Any]:
    return {}
