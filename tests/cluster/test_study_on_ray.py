"""The whole command on a real Ray gives the numbers of a local run."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from w2s_ray.cluster.session import Session
from w2s_ray.study import main

pytestmark = pytest.mark.ray

SAME = ("key", "loss", "status", "seed", "student_accuracy", "weak_accuracy", "ceiling_accuracy")
CLOSE = ("gain", "misfit_forward", "misfit_reverse", "student_cross_entropy", "final_loss")


def results(store: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store / "results").to_pylist()
    return rows


@pytest.mark.usefixtures("ray_session")
def test_ray_and_local_give_the_same_results(write_spec: Any, tmp_path: Path) -> None:
    """Heads and full fine-tuning, a failing cell among them."""
    spec = write_spec(
        grid__loss=["forward_kl", "reverse_kl"],
        grid__noise_ratio=[0.25],
        grid__trainable=["last_layer", "full"],
        grid__include=[{"learning_rate": [1e30], "loss": ["forward_kl"], "trainable": ["full"]}],
    )
    assert main([str(spec), "--local", "--store", str(tmp_path / "local")]) == 1
    assert main([str(spec), "--store", str(tmp_path / "ray")]) == 1
    local, ray = results(tmp_path / "local"), results(tmp_path / "ray")
    assert len(local) == 5
    for ours, theirs in zip(local, ray, strict=True):
        assert {name: ours[name] for name in SAME} == {name: theirs[name] for name in SAME}
        for name in CLOSE:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5)
    assert main([str(spec), "--plan", "--store", str(tmp_path / "ray")]) == 0


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
        "grid__loss": ["reverse_kl"],
        "grid__noise_ratio": [0.25],
        "grid__trainable": ["full"],
        "execution": {"workers": 2, "zero_stage": 3, "micro_batch_tokens": 256},
    }
    spec = write_spec(**changes)
    assert main([str(spec), "--local", "--store", str(tmp_path / "local")]) == 0
    for kind in kept:
        shutil.copytree(tmp_path / "local" / kind, tmp_path / "ray" / kind)
    assert main([str(spec), "--store", str(tmp_path / "ray")]) == 0
    (ours,), (theirs,) = results(tmp_path / "local"), results(tmp_path / "ray")
    assert {name: ours[name] for name in SAME} == {name: theirs[name] for name in SAME}
    for name in (*CLOSE, "tokens"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5)
