"""``results/`` while a study runs: now and then, after something has finished."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq

from tests.testing.steps import a_step
from w2s_ray.driver import results_so_far
from w2s_ray.driver.results_so_far import ResultsSoFar
from w2s_ray.study import main

END, OTHER = a_step("evaluate", "end"), a_step("weak", "other")


def told(*events: tuple[str, Any], between: float = 0.0) -> int:
    """How often results were written."""
    cells = [SimpleNamespace(keys={"student_evaluate": "end"})]
    study: Any = SimpleNamespace(plan=SimpleNamespace(cells=cells))
    written: list[Any] = []
    with ResultsSoFar(study, written.append, between) as results:
        for event, step in events:
            results(event, step, {})
            if results._writing is not None:
                results._writing.join()
    assert all(each is study for each in written)
    return len(written)


def test_they_are_written_after_a_cell_or_a_failure_and_not_otherwise() -> None:
    assert told(("started", END), ("progress", END), ("done", OTHER)) == 0
    assert told(("started", END), ("done", END)) == 1
    assert told(("failed", OTHER)) == 1


def test_what_finishes_too_early_is_written_with_a_later_event() -> None:
    assert told(("done", END), ("done", OTHER), between=60.0) == 0
    assert told(("done", END), ("started", OTHER), ("done", END)) == 2


def test_they_hold_finished_cells_and_say_that_more_is_to_come(
    finished: Path, tmp_path: Path, capsys: Any
) -> None:
    more = ["--set", "grid.seed=[0,1]", "--local", "--only", "prepare pairs"]
    assert main([str(finished), *more]) == 0
    assert "(unfinished: --only ran one step)" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "store/results/tiny.parquet")
    states = dict(zip(table["seed"].to_pylist(), table["status"].to_pylist(), strict=False))
    assert states == {0: "done", 1: "pending"}
    assert table.schema.metadata[b"unfinished"] == b"true"
    assert main([str(finished), "--local"]) == 0
    table = pq.read_table(tmp_path / "store/results/tiny.parquet")
    assert b"unfinished" not in table.schema.metadata


def test_a_fault_while_writing_ends_no_run(monkeypatch: Any) -> None:
    said: list[str] = []
    study: Any = SimpleNamespace(say=said.append, plan=SimpleNamespace(study="tiny"))
    assert results_so_far.write_so_far(study) is None
    assert said[0].startswith("note: the results so far were not written: ")
