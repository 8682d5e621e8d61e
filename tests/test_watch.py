"""``--watch``: what others do to a store is shown as in a run, and nothing is written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.driver import watching
from w2s_ray.driver.watching import Looks
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main


def content(store: Path) -> dict[str, tuple[int, int]]:
    paths = (path for path in store.rglob("*"))
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_differences_of_the_store_are_events(finished: Path, tmp_path: Path) -> None:
    source = tmp_path / "elsewhere"
    shutil.move(tmp_path / "store", source)
    store, plan = Store.open(tmp_path / "store"), build(load(finished))
    events: list[tuple[str, str]] = []
    looks = Looks(store, plan.steps, lambda event, step, _: events.append((event, str(step.kind))))

    def seen() -> list[tuple[str, str]]:
        events.clear()
        assert looks.look() == bool(events)
        return list(events)

    assert seen() == []
    shutil.copytree(source / "prepare", tmp_path / "store/prepare")
    assert seen() == [("done", "prepare")]
    weak, ceiling = (next(s for s in plan if s.kind.name == kind) for kind in ("weak", "ceiling"))
    shutil.copytree(source / "features", tmp_path / "store/features")
    with store.claims([weak.claim]):
        assert seen() == [("done", "features"), ("done", "features"), ("started", "weak")]
        assert seen() == []
    assert seen() == [("crashed", "weak")]
    with store.claims([ceiling.claim]):
        store.record_failure(ceiling.identity, "ValueError: no")
        assert ("failed", "ceiling") not in seen()  # another attempt's, as long as it is held
    store.record_failure(weak.identity, "ValueError: no")
    assert seen() == [("failed", "weak"), ("failed", "ceiling")] and seen() == []
    assert looks.is_stuck
    shutil.copytree(source, tmp_path / "store", dirs_exist_ok=True)
    assert {event for event, _ in seen()} == {"done"} and not looks.missing


def test_a_study_that_is_finished_ends_it(finished: Path, tmp_path: Path, capsys: Any) -> None:
    before = content(tmp_path / "store")
    assert main([str(finished), "--watch"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all steps are done"
    assert main([str(finished), "--watch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["not_done"] == 0
    assert content(tmp_path / "store") == before


def test_failures_that_nobody_tries_again_end_it(
    finished: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(watching, "SECONDS_BETWEEN", 0.01)
    store, plan = Store.open(tmp_path / "store"), build(load(finished))
    weak = next(step for step in plan if step.kind.name == "weak")
    below = {weak.key}
    for step in plan:
        if not below.isdisjoint({step.key, *step.inputs.values()}):
            below.add(step.key)
            shutil.rmtree(tmp_path / "store" / store.finished()[step.key])
    store.record_failure(weak.identity, "ValueError: no good")
    before = content(tmp_path / "store")
    assert main([str(finished), "--watch"]) == 1
    said = capsys.readouterr().out
    assert f"({weak.key}): ValueError: no good" in said
    assert said.splitlines()[-1].startswith("ended: 1 steps failed, ")
    assert content(tmp_path / "store") == before


def test_ctrl_c_ends_the_watching_alone_and_says_no_more(
    finished: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    shutil.rmtree(tmp_path / "store/student")
    monkeypatch.setattr(watching.time, "sleep", interrupted)
    assert main([str(finished), "--watch"]) == 130
    said = capsys.readouterr()
    assert said.out.endswith("no longer watching; nothing was stopped\n") and said.err == ""


def interrupted(seconds: float) -> None:
    raise KeyboardInterrupt
