"""A table that is not what was written is written again, and never believed."""

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.predictions import models_written, write_predictions
from w2s_ray.store.results import write_results
from w2s_ray.store.tables import is_changed, reading_table, remove_table, writing_table


@pytest.fixture
def made(local: Store, study: Any) -> Any:
    made = study(local, seeds=[0])
    made.finish_all()
    write_results(local, "hh", made.cells)
    write_predictions(local, "hh", made.cells)
    return made


def test_a_flipped_bit_of_predictions_is_noticed_and_the_table_written_again(
    local: Store, made: Any
) -> None:
    path = Path(local.uri, "predictions/hh.parquet")
    content = path.read_bytes()
    draw = random.Random(0)
    for bit in sorted(draw.sample(range(8 * len(content)), 200)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert models_written(local, "hh") is None
    write_predictions(local, "hh", made.cells)
    assert path.read_bytes() == content


def test_predictions_that_are_whole_are_not_written_again(local: Store, made: Any) -> None:
    path = Path(local.uri, "predictions/hh.parquet")
    written = path.stat().st_mtime_ns
    write_predictions(local, "hh", made.cells)
    assert path.stat().st_mtime_ns == written and models_written(local, "hh")
    path.with_name(".hh.parquet.sha256").unlink()  # as an earlier version left it
    write_predictions(local, "hh", made.cells)
    assert path.stat().st_mtime_ns == written


def test_the_digest_is_one_that_sha256sum_checks(local: Store, made: Any) -> None:
    for folder in ("results", "predictions"):
        command = ["sha256sum", "--check", "--strict", ".hh.parquet.sha256"]
        assert subprocess.run(command, cwd=Path(local.uri, folder), check=False).returncode == 0


def test_results_say_which_records_they_were_made_of(local: Store, made: Any) -> None:
    def made_of() -> bytes:
        metadata = parquet.read_schema(Path(local.uri, "results/hh.parquet")).metadata
        return bytes(metadata[b"made_of"])

    first = made_of()
    write_results(local, "hh", made.cells)
    assert made_of() == first
    (evaluation,) = (p for p in local.finished().values() if made.cells[0]["keys"]["prepare"] in p)
    local.discard(evaluation)
    made.finish("prepare", made.cells[0])
    write_results(local, "hh", made.cells)
    assert made_of() != first, "the same numbers of another run"


def test_a_changed_table_is_refused_in_one_line(store: Store) -> None:
    with writing_table(store, "transfer/hh.parquet") as target:
        target.write_bytes(b"a table")
    assert not is_changed(store, "transfer/hh.parquet")
    store.backend.write("transfer/hh.parquet", b"another")
    with (
        pytest.raises(InputError, match=r"transfer/hh\.parquet was changed after it was written"),
        reading_table(store, "transfer/hh.parquet"),
    ):
        pass
    remove_table(store, "transfer/hh.parquet")
    with pytest.raises(FileNotFoundError):
        is_changed(store, "transfer/hh.parquet")
    assert store.listing("transfer") == []


def test_a_table_that_cannot_be_written_leaves_the_old_one_unjudged(local: Store) -> None:
    with writing_table(local, "results/hh.parquet") as target:
        target.write_bytes(b"old")
    with pytest.raises(ValueError, match="stop"), writing_table(local, "results/hh.parquet"):
        raise ValueError("stop")
    assert Path(local.uri, "results/hh.parquet").read_bytes() == b"old"
    assert not is_changed(local, "results/hh.parquet")
