"""The whole command on a real Ray gives the numbers of a local run."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.testing.specs import REPOSITORY, tiny_spec
from tests.testing.text_studies import text_spec
from w2s_ray.cluster.session import Session
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

pytestmark = pytest.mark.ray

SAME = ("key", "loss", "status", "seed", "student_accuracy", "weak_accuracy", "ceiling_accuracy")
CHOSEN = ("selected", "selected_step", "selection_missing", "ceiling_step", "validation_accuracy")
CLOSE = ("gain", "misfit_forward", "misfit_reverse", "student_cross_entropy", "final_loss")
SCORED = ("validation_weak_ce", "validation_own_loss")
FURTHER = {"far": str(REPOSITORY / "tests" / "golden" / "more_pairs.jsonl")}


def rows_of(store: Path, table: str = "results") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store / table).to_pylist()
    return rows


def of(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names}


@pytest.mark.usefixtures("ray_session")
def test_ray_and_local_give_the_same_results(write_spec: Any, tmp_path: Path) -> None:
    """Heads and full fine-tuning, a failing cell among them; controls; steps that are chosen."""
    spec = write_spec(
        validation={"rows": 8},
        select={"over": ["learning_rate", "step"], "by": "weak_ce"},
        controls=["untrained", "shuffled_labels", "length"],
        training={
            **{"precision": "fp32", "max_length_tokens": 128, "batch_size": 8},
            "evaluations": 3,
        },
        grid__learning_rate=[1e-3, 1e-2],
        grid__loss=["forward_kl", "reverse_kl"],
        grid__noise_ratio=[0.25],
        grid__trainable=["last_layer", "full"],
        grid__include=[{"learning_rate": [1e30], "loss": ["forward_kl"], "trainable": ["full"]}],
    )
    assert main([str(spec), "--local", "--store", str(tmp_path / "local")]) == 1
    assert main([str(spec), "--store", str(tmp_path / "ray")]) == 1
    local, ray = rows_of(tmp_path / "local"), rows_of(tmp_path / "ray")
    assert len(local) == 9 + 15
    for ours, theirs in zip(local, ray, strict=True):
        same, close = (*SAME, *CHOSEN), (*CLOSE, *SCORED)
        assert of(ours, same) == of(theirs, same)
        assert of(ours, close) == pytest.approx(of(theirs, close), abs=1e-5)
    assert main([str(spec), "--plan", "--store", str(tmp_path / "ray")]) == 0


@pytest.mark.usefixtures("ray_session")
def test_ray_and_local_generate_the_same_texts(tmp_path: Path) -> None:
    methods = ["best_of_n", "weak_sft", "cong", "wspo", "proxy"]
    grid = {"pair": [["weak", "strong"]], "method": methods}
    spec = text_spec(tmp_path, grid=grid, execution={"max_concurrent_steps": 1})
    for name, options in (("local", ["--local"]), ("ray", [])):
        assert main([str(spec), *options, "--store", str(tmp_path / name)]) == 0
    measured = {"samples": ("text", "reward"), "results": ("rate", "cut_off", "distinct_2")}
    for table, columns in measured.items():
        local, ray = (rows_of(tmp_path / name, table) for name in ("local", "ray"))
        assert [of(row, ("key", *columns)) for row in local] == [
            of(row, ("key", *columns)) for row in ray
        ]
    assert {row["method"] for row in ray} >= {*methods}
    for ours, theirs in zip(local, ray, strict=True):
        for column in ("log_ratio", "perplexity", "final_loss"):
            assert theirs[column] == pytest.approx(ours[column], abs=1e-5), column


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "only",
    [("--only", "align weak-dpo-s0"), pytest.param((), marks=pytest.mark.slow)],
    ids=["align", "whole study"],
)
def test_two_workers_under_zero_3_learn_from_text_as_one_process_does(
    tmp_path: Path, only: tuple[str, ...]
) -> None:
    """DPO, SFT, and DPO from an earlier step's weights. Answers of trained models may differ by
    rounding, so the trainings before them are compared."""
    grid = {"pair": [["weak", "strong"]], "method": ["cong"]}
    group = {"workers": 2, "zero_stage": 3}
    spec = text_spec(tmp_path, grid=grid, execution=group)
    aligned = {}
    for name, options in (("local", ["--local"]), ("ray", [])):
        assert main([str(spec), *options, *only, "--store", str(tmp_path / name)]) == 0
        store = Store.open(str(tmp_path / name))
        records = [store.artifact(key).record for key in sorted(store.finished())]
        trained = [record for record in records if "final_loss" in record["metrics"]]
        assert {record["metrics"]["workers"] for record in trained} == {1 if options else 2}
        aligned[name] = {of["key"]: of["metrics"] for of in trained if of["kind"] == "align"}
    compared = ("first_loss", "final_loss", "preference_accuracy", "mean_margin", "tokens")
    assert aligned["local"]
    for key, here in aligned["local"].items():
        assert of(aligned["ray"][key], compared) == pytest.approx(of(here, compared), abs=1e-5)


def test_the_dashboard_is_on_loopback(ray_session: Session) -> None:
    assert ray_session.dashboard_url is not None
    assert ray_session.dashboard_url.startswith("http://127.0.0.1:")


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "kept",
    [("prepare", "ceiling"), pytest.param((), marks=pytest.mark.slow)],
    ids=["weak and student", "whole"],
)
def test_two_workers_under_zero_3_give_the_results_of_one_process(
    write_spec: Any, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    """Each model is trained by a worker group, and the labels come from its weights.

    Steps of the kinds ``kept`` are those of the local run.
    """
    changes = {
        "data__pairs": {**tiny_spec()["data"]["pairs"], "tests": FURTHER},  # type: ignore[index]
        "validation": {"rows": 8},
        "grid__loss": ["reverse_kl"],
        "grid__noise_ratio": [0.25],
        "grid__trainable": ["full"],
        "grid__weight_decay": [0.5],
        "grid__learning_rate": [3e-3],
        "training__evaluations": 3,
        "execution": {"workers": 2, "zero_stage": 3, "micro_batch_tokens": 256}
        | {"max_concurrent_steps": 1},
    }
    spec = write_spec(**changes)
    assert main([str(spec), "--local", "--store", str(tmp_path / "local")]) == 0
    for kind in kept:
        shutil.copytree(tmp_path / "local" / kind, tmp_path / "ray" / kind)
    assert main([str(spec), "--store", str(tmp_path / "ray")]) == 0
    (ours,), (theirs,) = rows_of(tmp_path / "local"), rows_of(tmp_path / "ray")
    assert of(ours, SAME) == of(theirs, SAME)
    for name in (*CLOSE, *SCORED, "tokens"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5)
    (ours,), (theirs,) = (rows_of(tmp_path / name, "transfer") for name in ("local", "ray"))
    assert ours["status"] == theirs["status"] == "done"
    for name in ("gain", "misfit_forward", "student_accuracy"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5)
