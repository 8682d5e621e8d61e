"""``--explain`` and ``--only``: one step, seen and run alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2s_ray.driver.options import program
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main


def explained(spec: Path, name: str, capsys: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert main([str(spec), "--explain", name, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_finished_step_is_explained_with_its_record_and_inputs(
    finished: Path, tmp_path: Path, capsys: Any
) -> None:
    store = Store.open(tmp_path / "store")
    key, path = next((k, p) for k, p in store.finished().items() if p.startswith("student/"))
    found = explained(finished, key[:10], capsys)
    assert found["key"] == key and found["state"] == "done"
    assert found["folder"].endswith(path) and found["record"] == store.record(key)
    assert found["configuration"] == store.record(key)["config"] and found["failure"] is None
    assert all(line.endswith(": done") for line in found["inputs"].values())


def test_one_step_runs_with_what_it_needs_and_nothing_else(
    write_spec: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    spec = write_spec(grid__loss=["forward_ce", "reverse_kl"], grid__noise_ratio=[0.0])
    found = explained(spec, "reverse_kl", capsys)
    assert found["state"] == "not done" and f"--only {found['key']}" in found["run"]
    assert main([str(spec), "--local", "--only", "reverse_kl"]) == 0
    kinds = [path.split("/")[0] for path in Store.open(tmp_path / "store").finished().values()]
    assert sorted(kinds) == ["features", "features", "label", "prepare", "student", "weak"]
    assert explained(spec, "reverse_kl", capsys)["state"] == "done"


def test_a_finished_study_stays_finished(finished: Path, tmp_path: Path, capsys: Any) -> None:
    (key, *_) = Store.open(tmp_path / "store").finished()
    assert main([str(finished), "--local", "--only", key]) == 0
    assert "unfinished" not in capsys.readouterr().out


def test_a_script_outside_of_the_path_is_named_by_its_path(monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["/env/bin/w2s"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ["/env/bin/w2s"]


def test_a_step_is_not_run_by_a_command_that_runs_nothing(
    write_spec: Callable[..., Path], capsys: Any
) -> None:
    assert main([str(write_spec()), "--plan", "--only", "abc"]) == 2
    assert "--only: given with --plan" in capsys.readouterr().err
