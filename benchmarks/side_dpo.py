"""One side of the row on DPO: ``w2s_ray.training.fit_text.fit_text``, stopped between rounds."""

import tempfile
from pathlib import Path

import torch

from benchmarks.preference import dpo_job
from benchmarks.rounds import Rounds
from benchmarks.sides import settings
from w2s_ray.training.fit_text import fit_text


def main() -> None:
    """Train for as long as there are requests."""
    given = settings()
    torch.set_num_threads(given["threads"])
    job = dpo_job(given["rows"], given["execution"])
    rounds = Rounds(given["warmup"])
    with tempfile.TemporaryDirectory() as folder:
        fit_text(job, Path(folder), progress=lambda numbers: rounds.step_done())


if __name__ == "__main__":
    main()
