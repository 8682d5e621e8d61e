"""What a small study of generated text computes, by kind of step; ``test_values`` compares it."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.golden.goldens import Golden
from tests.testing.text_studies import classified_spec, text_spec
from w2s_ray.plan.build import build
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.steps.classifier import read_classifier
from w2s_ray.steps.ratios import read_ratios
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

METHODS = ["cong_s", "cong", "wspo"]


def text_goldens(folder: Path) -> dict[str, Golden]:
    """Runs a study in a folder and collects a few numbers of every kind."""
    spec = text_spec(folder, grid={"pair": [["weak", "strong"]], "method": METHODS})
    assert main([str(spec), "--local"]) == 0
    plan, store = build(load(spec)), Store.open(str(folder / "store"))
    store.finished()
    numbers: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    versions: defaultdict[str, dict[str, int]] = defaultdict(dict)
    seen: set[str] = set()
    for cell in plan.cells:
        for role, key in cell.keys.items():
            step = plan.steps[key]
            if key not in seen:
                seen.add(key)
                name = f"{cell.values['method']} {role}"
                numbers[step.kind.name][name] = OF_KIND[step.kind.name](store.artifact(key))
                versions[step.kind.name] |= _lineage(plan.steps, step)
    assert seen == plan.steps.keys()
    numbers["classifier"], versions["classifier"] = _classifiers(folder / "classified")
    return {
        kind: Golden(kind, {k: versions[kind][k] for k in KINDS if k in versions[kind]}, of)
        for kind, of in numbers.items()
    }


def _classifiers(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What the two kinds say of a few texts, in whole numbers: a solver ends where it is good."""
    plan, store = build(load(classified_spec(folder))), Store.open(str(folder / "store"))
    steps = [step for step in plan if step.kind.name == "classifier"]
    said = {}
    for step in steps:
        execute(step, store)
        artifact = store.artifact(step.key)
        odds = read_classifier(artifact).log_odds(["film 1 is ab cd", "film 2 is no xy", "zz"])
        accuracy = artifact.record["metrics"]["accuracy"]
        said[str(artifact.record["config"]["kind"])] = {
            "tenths of nats": [round(10 * of) for of in odds.tolist()],
            "accuracy": accuracy,
        }
    return said, {"classifier": steps[0].kind.version}


def _lineage(steps: Mapping[str, Step], step: Step) -> dict[str, int]:
    found = {step.kind.name: step.kind.version}
    for key in step.inputs.values():
        found |= _lineage(steps, steps[key])
    return found


def _prompts(artifact: Artifact) -> dict[str, Any]:
    return {"prompts": pq.read_table(artifact.file("prompts.parquet"))["prompt"].to_pylist()}


def _samples(artifact: Artifact) -> dict[str, Any]:
    table = pq.read_table(artifact.file("samples.parquet"))
    return {
        "tokens": table["tokens"].to_pylist()[:6],
        "cut off": table["cut_off"].to_pylist()[:6],
        "log_prob": table["log_prob"].to_pylist()[:6],
        "log_prob_reference": table["log_prob_reference"].to_pylist()[:6],
    }


def _verdicts(artifact: Artifact) -> dict[str, Any]:
    table = pq.read_table(artifact.file("verdicts.parquet"))
    return {"rewards": table["reward"].to_pylist(), "splits": artifact.record["metrics"]["splits"]}


def _perplexities(artifact: Artifact) -> dict[str, Any]:
    table = pq.read_table(artifact.file("perplexities.parquet"))
    numbers = {name: table[name].to_pylist()[:6] for name in ("log_prob", "tokens")}
    return {**numbers, "splits": artifact.record["metrics"]["splits"]}


def _ratios(artifact: Artifact) -> dict[str, Any]:
    found = read_ratios(artifact)
    return {row_id: ratios.tolist() for row_id, ratios in list(found.items())[:3]}


def _pairs(artifact: Artifact) -> dict[str, Any]:
    table = pq.read_table(artifact.file("pairs.parquet"))
    return {"rows": table["row_id"].to_pylist()}


def _trained(artifact: Artifact) -> dict[str, Any]:
    curve = pq.read_table(artifact.file("curve.parquet"))
    names = ("loss", "gradient_norm", "learning_rate")
    return {name: curve[name].to_pylist() for name in names}


OF_KIND = {
    "prompts": _prompts,
    "generate": _samples,
    "judge": _verdicts,
    "pairs": _pairs,
    "align": _trained,
    "finetune": _trained,
    "prefer": _trained,
    "perplexity": _perplexities,
    "ratios": _ratios,
}
