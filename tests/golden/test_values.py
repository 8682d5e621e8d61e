"""What a small study computes, one committed file for each kind of step.

When numbers move on purpose, raise the version of the kind that moved first and write the files
again: ``python -m tests.golden.test_values``. It refuses while no version is raised.
"""

from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.golden.goldens import Golden, check, write
from tests.golden.text_values import text_goldens
from w2s_ray.data.batches import epoch_order
from w2s_ray.objectives.noise import noisy_count
from w2s_ray.order import order
from w2s_ray.plan.build import build
from w2s_ray.plan.configs import StudentConfig, TrainConfig
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

SPEC = Path(__file__).with_name("values.yaml")
FILES = Path(__file__).with_name("values")
SPLITS = ("ground_truth", "weak", "test")
TIMES = ("seconds", "peak_memory_bytes")


def goldens(store: Path) -> dict[str, Golden]:
    """Runs the study in ``store`` and collects the numbers of every kind."""
    assert main([str(SPEC), "--local", "--store", str(store)]) == 0
    plan, artifacts = build(load(SPEC)), Store.open(store)
    artifacts.finished()
    numbers: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    versions: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, step in named(plan).items():
        inputs = {role: artifacts.artifact(key) for role, key in step.inputs.items()}
        found = OF_KIND[step.kind.name](artifacts.artifact(step.key), step, inputs)
        numbers[step.kind.name][name] = {"key": step.key, **found}
        versions[step.kind.name] |= lineage(plan, step)
    return {
        kind: Golden(kind, {k: versions[kind][k] for k in KINDS if k in versions[kind]}, of_kind)
        for kind, of_kind in numbers.items()
    }


def reward_golden(folder: Path) -> dict[str, Golden]:
    """A weak model of the same study that labels by implicit rewards, and its labels."""
    spec = yaml.safe_load(SPEC.read_text())
    del spec["data"]["pairs"]["tests"]
    spec["training"]["weak"] = {"objective": "implicit_reward", "trainable": "full"}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    plan, store = build(load(folder / "spec.yaml")), Store.open(folder / "store")
    step = next(step for step in plan if step.kind.name == "reward")
    labels = next(s for s in plan if s.kind.name == "label" and s.inputs["weak"] == step.key)
    found = {}
    for needed in (plan.steps[step.inputs["prepare"]], step, labels):
        execute(needed, store)
        inputs = {role: store.artifact(key) for role, key in needed.inputs.items()}
        found[needed.kind.name] = OF_KIND[needed.kind.name](
            store.artifact(needed.key), needed, inputs
        )
    del found["prepare"]
    return {"reward": Golden("reward", lineage(plan, labels), found)}


def named(plan: Plan) -> dict[str, Step]:
    """The steps by what is trained in their cell and their role there, each once."""
    names: dict[str, str] = {}
    for cell in plan.cells:
        for role, key in cell.keys.items():
            several = cell.values["weak"] if "+" in cell.values["weak"] else ""
            name = f"{several} {cell.values['trainable']} {role} {cell.values['control']}"
            names.setdefault(key, name.strip())
        for test, keys in cell.tests.items():
            for role, key in keys.items():
                of_test = f"{cell.values['trainable']} {test} {role} {cell.values['control']}"
                names.setdefault(key, f"{several} {of_test}".strip())
    assert names.keys() == plan.steps.keys()
    return {name: plan.steps[key] for key, name in names.items()}


def lineage(plan: Plan, step: Step) -> dict[str, int]:
    """Versions of the step's kind and of all kinds that it is computed from.

    Raising any of them moves the step's key, so its numbers may move then.
    """
    found = {step.kind.name: step.kind.version}
    for key in step.inputs.values():
        found |= lineage(plan, plan.steps[key])
    return found


def digest(texts: list[str]) -> str:
    return sha256("\n".join(texts).encode()).hexdigest()[:16]


def prepared(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Which rows are in which split, in which order, and which answer comes first."""
    found: dict[str, Any] = {}
    for split in (split for split in SPLITS if step.kind.name == "prepare" or split == "test"):
        table = pq.read_table(artifact.folder / f"{split}.parquet")
        row_ids = table["row_id"].to_pylist()
        texts = [
            f"{prompt}\x1f{a}\x1f{b}"
            for prompt, (a, b) in zip(
                table["prompt"].to_pylist(), table["answers"].to_pylist(), strict=True
            )
        ]
        found[split] = {
            "first rows": row_ids[:3],
            "order of rows": digest(row_ids),
            "texts": digest(texts),
            "labels": "".join(map(str, table["label"].to_pylist())),
        }
    return {**found, "report": artifact.record["metrics"]["report"]}


def features(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split in step.kind.scored:
        states = np.load(artifact.folder / f"{split}.npy")
        row_ids = pq.read_table(artifact.folder / f"{split}.parquet")["row_id"].to_pylist()
        found[split] = {
            "shape": list(states.shape),
            "order of rows": digest(row_ids),
            "first states": states[0, :, :4].tolist(),
            "last states": states[-1, :, :4].tolist(),
        }
    return found


def trained(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """The whole curve, and what the model makes of the first test rows."""
    test = pq.read_table(artifact.folder / "test.parquet")
    curve = pq.read_table(artifact.folder / "curve.parquet").to_pydict()
    split = step.kind.trained_on
    rows = pq.read_table(inputs["prepare"].folder / f"{split}.parquet")["row_id"].to_pylist()
    orders = [
        epoch_order(rows, step.config_as(TrainConfig).seed, epoch).tolist() for epoch in (0, 1)
    ]
    return {
        "epoch orders": orders,
        "loss": curve["loss"],
        "learning rate": curve["learning_rate"],
        "gradient norm": curve["gradient_norm"],
        "first test rows": test["row_id"].to_pylist()[:4],
        "first probabilities": test["probs"].to_pylist()[:4],
        "tokens": artifact.record["metrics"].get("tokens"),
    }


def student(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    labels = pq.read_table(inputs["label"].folder / "soft_labels.parquet")
    drawn = order(labels["row_id"].to_pylist(), step.config_as(StudentConfig).seed, "noise")
    count = noisy_count(labels.num_rows, step.config_as(StudentConfig).noise.ratio)
    alpha = pq.read_table(artifact.folder / "curve.parquet")["alpha"].to_pylist()
    noisy = sorted(drawn[:count].tolist())
    return {"noisy rows": noisy, "alpha": alpha, **trained(artifact, step, inputs)}


def predicted(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    test = pq.read_table(artifact.folder / "test.parquet")
    first = {"rows": test["row_id"].to_pylist()[:4], "probabilities": test["probs"].to_pylist()[:4]}
    metrics = artifact.record["metrics"]
    return {**first, **{name: metrics[name] for name in ("features", "tokens") if name in metrics}}


def label(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    labels = pq.read_table(artifact.folder / "soft_labels.parquet")
    return {
        "order of rows": digest(labels["row_id"].to_pylist()),
        "first labels": labels["probs"].to_pylist()[:6],
        "accuracy": artifact.record["metrics"]["accuracy"],
        "mean confidence": artifact.record["metrics"]["mean_confidence"],
    }


def evaluated(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    return {name: v for name, v in artifact.record["metrics"].items() if name not in TIMES}


def further(artifact: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    test = pq.read_table(artifact.folder / "test.parquet")
    return {
        "order of rows": digest(test["row_id"].to_pylist()),
        "first probabilities": test["probs"].to_pylist()[:4],
    }


OF_KIND = {
    "prepare": prepared,
    "test_set": prepared,
    "features": features,
    "test_features": features,
    "weak": trained,
    "reward": trained,
    "label": label,
    "ensemble": label,
    "ceiling": trained,
    "student": student,
    "strong_on_weak_rows": trained,
    "baseline": predicted,
    "untrained": predicted,
    "predict": further,
    "evaluate": evaluated,
}


def computed_in(values: Path, text: Path, reward: Path) -> dict[str, Golden]:
    return goldens(values) | text_goldens(text) | reward_golden(reward)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Golden]:
    folders = (tmp_path_factory.mktemp(name) for name in ("values", "text", "reward"))
    return computed_in(*folders)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_a_kind_move_only_with_a_version(kind: str, computed: dict[str, Golden]) -> None:
    check(computed[kind], FILES)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        folders = [Path(folder, name) for name in ("values", "text", "reward")]
        for made in folders:
            made.mkdir()
        for golden in computed_in(*folders).values():
            print(golden.name, "written" if write(golden, FILES) else "has not moved")
