"""One side of the training rows: ``w2s_ray.training.fit.fit``, stopped between rounds."""

import tempfile
from pathlib import Path

import torch

from benchmarks.pairs import PAIRS, train_job
from benchmarks.rounds import Rounds
from benchmarks.sides import settings
from w2s_ray.training.fit import fit


def main() -> None:
    """Train for as long as there are requests."""
    given = settings()
    torch.set_num_threads(given["threads"])
    pairs = PAIRS[given["pairs"]]().slice(0, given["rows"])
    job = train_job(pairs, given["execution"])
    rounds = Rounds(given["warmup"])
    with tempfile.TemporaryDirectory() as folder:
        fit(job, Path(folder), progress=lambda numbers: rounds.step_done())


if __name__ == "__main__":
    main()
