"""The report of a run is a folder of its store, whatever kind of store that is."""

from typing import Any

from w2s_ray.report.saved import save_report
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import REPORT_PAGE, report_folder
from w2s_ray.store.predictions import write_predictions
from w2s_ray.store.results import save_cells, write_results


def test_a_report_is_saved_whole_and_replaced_whole(store: Store, study: Any) -> None:
    made = study(store, seeds=[0, 1])
    made.finish_all()
    save_cells(store, "hh", made.cells)
    write_results(store, "hh", made.cells)
    write_predictions(store, "hh", made.cells)
    location = save_report(store, "hh")
    folder = report_folder("hh")
    assert location == store.location(f"{folder}/{REPORT_PAGE}")
    assert {REPORT_PAGE, "report.md"} <= {*store.listing(folder)}
    with store.open_file(f"{folder}/tables/accuracy.csv") as file:
        before = file.read()
    with store.writing(f"{folder}/tables/stale.csv") as path:
        path.write_text("of an earlier study")
    save_report(store, "hh")
    assert "stale.csv" not in store.listing(f"{folder}/tables")
    with store.open_file(f"{folder}/tables/accuracy.csv") as file:
        assert file.read() == before
