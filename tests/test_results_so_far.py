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


BETWEEN = 60.0


def told(*events: tuple[float, str, Any], takes: float = 0.0) -> list[float]:
    """When results were written by a clock that is ours, of events at given seconds.

    Args:
        takes: seconds that a writing takes.
    """
    cells = [SimpleNamespace(keys={"student_evaluate": "end"})]
    study: Any = SimpleNamespace(plan=SimpleNamespace(cells=cells))
    now = 0.0
    written: list[float] = []

    def write(given: Any) -> None:
        nonlocal now
        assert given is study
        written.append(now)
        now += takes

    with ResultsSoFar(study, write, BETWEEN, clock=lambda: now) as results:
        for at, event, step in events:
            now = at
            results(event, step, {})
            if results._writing is not None:
                results._writing.join()
    return written


def test_they_are_written_after_a_cell_or_a_failure_and_not_otherwise() -> None:
    assert told((61, "started", END), (62, "progress", END), (63, "done", OTHER)) == []
    assert told((61, "started", END), (62, "done", END)) == [62]
    assert told((61, "failed", OTHER)) == [61]


def test_what_finishes_too_early_is_written_with_a_later_event() -> None:
    assert told((59, "done", END), (60, "progress", OTHER)) == [60]
    assert told((61, "done", END), (120, "done", END), (121, "started", OTHER)) == [61, 121]


def test_they_take_at_most_a_twentieth_of_the_time() -> None:
    ends = [(float(at), "done", END) for at in range(60, 400, 10)]
    assert told(*ends, takes=8.0) == [60, 220, 380]


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
