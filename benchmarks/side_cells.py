"""One side of the quickstart row: its cells one by one, each in its own empty store.

Every cell prepares its data, extracts its features, trains its weak model, labels, trains ceiling
and student and evaluates them, with the project's own steps and nothing shared between cells. The
process stays alive, so its start counts once.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.sides import answer, requests, settings
from benchmarks.studies import planned, run_here, write
from w2s_ray.plan.graph import Cell
from w2s_ray.store.artifacts import Store


def main() -> None:
    """Run the cell of every request."""
    given = settings()
    torch.set_num_threads(given["threads"])
    whole = yaml.safe_load(Path(given["spec"]).read_text())
    _, plan = planned(Path(given["spec"]))
    answer(cells=len(plan.cells))
    for request in requests():
        cell = plan.cells[request["cell"]]
        folder = Path(tempfile.mkdtemp(dir=given["scratch"]))
        started = time.perf_counter()
        spec = write(folder / "cell.yaml", {**whole, "grid": _single(whole["grid"], cell)})
        _, alone = planned(spec)
        run_here(alone.steps, Store.open(str(folder / "store")))
        seconds = time.perf_counter() - started
        assert [one.keys for one in alone.cells] == [cell.keys]
        answer(seconds=seconds, steps=len(alone.steps))
        shutil.rmtree(folder)


def _single(grid: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """The grid of one cell."""
    pair = [[cell.values["weak"], cell.values["strong"]]]
    return {axis: pair if axis == "pair" else [cell.values[axis]] for axis in grid}


if __name__ == "__main__":
    main()
