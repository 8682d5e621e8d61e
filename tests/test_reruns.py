"""Steps that are made again on request, and failed ones that are left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.running import runner
from w2s_ray.steps import evaluate
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main


def keys_of(store: Path, kind: str) -> dict[str, str]:
    """key -> path of the finished steps of a kind."""
    finished = Store.open(store).finished()
    return {key: path for key, path in finished.items() if path.startswith(f"{kind}/")}


@pytest.mark.parametrize("kind", ["student", "weak", "features"])
def test_a_forced_step_is_made_again_and_no_other(
    finished: Path, tmp_path: Path, capsys: Any, kind: str
) -> None:
    store = tmp_path / "store"
    key, path = next(iter(keys_of(store, kind).items()))
    others = {p: p.stat().st_ino for p in store.glob("*/*/record.json") if path not in str(p)}
    given = path if kind == "weak" else key[:12]
    capsys.readouterr()
    assert main([str(finished), "--local", "--force", given]) == 0
    said = capsys.readouterr().out
    assert f"set aside: {path}; it is made again" in said and "1 step to do" in said
    assert f"finished steps that read {key} as it was" in said
    assert len(list((store / "damaged" / kind).iterdir())) == 1
    assert {p: p.stat().st_ino for p in others} == others
    assert key in Store.open(store).finished()


def test_a_member_of_a_bundle_takes_the_whole_bundle_with_it(
    write_spec: Callable[..., Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SMALLEST_BUNDLE", 2)
    spec = write_spec()
    assert main([str(spec), "--local"]) == 0
    key, path = next(iter(keys_of(tmp_path / "store", "student").items()))
    assert main([str(spec), "--local", "--force", key]) == 0
    said = capsys.readouterr().out
    assert f"set aside: {path}, the bundle of all 4 steps that were computed together" in said
    assert "4 steps to do" in said
    assert keys_of(tmp_path / "store", "student")[key] == path, "the same members, one bundle again"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("student/x", "given 'student/x', expected a key of this study"),
        ("", "given '', expected a key of this study"),
    ],
)
def test_an_unknown_step_is_refused_before_anything_is_set_aside(
    finished: Path, tmp_path: Path, capsys: Any, given: str, complaint: str
) -> None:
    store = tmp_path / "store"
    key, path = next(iter(keys_of(store, "student").items()))
    arguments = [str(finished), "--local", "--force"]
    assert main([*arguments, key, "--force", given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    typo = path[:-2] + "zz"
    assert main([*arguments, typo]) == 2
    assert f"did you mean '{path}'?" in capsys.readouterr().err
    assert main([str(finished), "--plan", "--force", key]) == 2
    assert not (store / "damaged").exists()


def test_failed_steps_are_tried_again_unless_told_otherwise(
    write_spec: Callable[..., Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec()
    with monkeypatch.context() as patch:

        def fails(*arguments: Any) -> None:
            raise ValueError("out of luck")

        patch.setattr(evaluate, "run_together", fails)
        patch.setattr(evaluate, "run", fails)
        assert main([str(spec), "--local"]) == 1
    count = len(Store.open(tmp_path / "store").failures())
    assert count == 7
    capsys.readouterr()
    assert main([str(spec), "--local", "--no-retry"]) == 1
    assert "0 steps to do" in capsys.readouterr().out
    assert len(Store.open(tmp_path / "store").failures()) == count
    assert main([str(spec), "--local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells_with_failures"] == 0
    assert not Store.open(tmp_path / "store").failures()
