"""Folders: data but no metadata, no row twice, no splits as one."""

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from w2s_ray.data.sources import fingerprint, read_rows
from w2s_ray.errors import InputError

ROWS = [{"text": f"sentence {n}", "label": n % 2} for n in range(5)]


def rows(source: Path) -> list[dict[str, object]]:
    return [row for _, row in read_rows(str(source))]


def refusal(source: Path) -> str:
    with pytest.raises(InputError) as error:
        rows(source)
    with pytest.raises(InputError) as again:
        fingerprint(str(source))
    assert str(error.value) == str(again.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_save_to_disk_wrote_is_read_with_its_places(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    assert rows(tmp_path / "saved") == ROWS
    places = [where.removeprefix(f"{tmp_path}/") for where, _ in read_rows(str(tmp_path))]
    assert places[0] == "saved/data-00000-of-00002.arrow: row 1"
    assert places[-1] == "saved/data-00001-of-00002.arrow: row 2"
    size = sum(path.stat().st_size for path in (tmp_path / "saved").glob("*.arrow"))
    assert fingerprint(str(tmp_path / "saved"))["bytes"] == size


def test_only_files_that_the_state_lists_are_of_the_saved_data(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path)
    before = fingerprint(str(tmp_path))
    saved = (tmp_path / "data-00000-of-00001.arrow").read_bytes()
    (tmp_path / "cache-0123456789abcdef.arrow").write_bytes(saved)
    assert rows(tmp_path) == ROWS
    assert fingerprint(str(tmp_path)) == before
    (tmp_path / "more.jsonl").write_text('{"text": "more", "label": 1}\n')
    assert len(rows(tmp_path)) == len(ROWS) + 1


def test_a_shard_that_is_missing_is_named(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path, num_shards=2)
    (tmp_path / "data-00001-of-00002.arrow").unlink()
    assert refusal(tmp_path) == (
        f"{tmp_path}/data-00001-of-00002.arrow: no such file, but state.json lists it"
    )
    (tmp_path / "state.json").write_text("[]")
    assert refusal(tmp_path).startswith(f"{tmp_path}/state.json: expected the state of a data set")


def test_splits_of_a_saved_data_set_are_not_read_as_one(tmp_path):
    parts = {name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert refusal(tmp_path / "saved") == (
        f"{tmp_path}/saved: a data set saved with the splits test, train; expected one of them, "
        f"such as {tmp_path}/saved/test"
    )
    assert refusal(tmp_path).startswith(f"{tmp_path}/saved: a data set saved with the splits")
    assert rows(tmp_path / "saved" / "train") == ROWS
    datasets.DatasetDict({"train": parts["train"]}).save_to_disk(tmp_path / "one")
    assert rows(tmp_path / "one") == ROWS


def test_the_cache_of_the_library_datasets_is_read_without_cached_results(tmp_path):
    with pa.ipc.new_stream(str(tmp_path / "x-train.arrow"), pa.table({"text": ["a"]}).schema) as to:
        to.write_table(pa.table({"text": ["a"]}))
    (tmp_path / "cache-77.arrow").write_bytes((tmp_path / "x-train.arrow").read_bytes())
    assert len(rows(tmp_path)) == 2
    (tmp_path / "dataset_info.json").write_text("{}")
    assert rows(tmp_path) == [{"text": "a"}]


def test_files_that_describe_data_are_no_data(tmp_path):
    (tmp_path / "states.jsonl").write_text(json.dumps(ROWS[0]))
    for name in ("dataset_infos.json", "dataset_info.json", "dataset-metadata.json"):
        (tmp_path / name).write_text(json.dumps({"text": "not a row"}, indent=1))
    assert rows(tmp_path) == ROWS[:1]
    (tmp_path / "state.json").write_text(json.dumps(ROWS[1]))
    assert rows(tmp_path) == [ROWS[1], ROWS[0]], "a state.json is metadata only beside Arrow files"


@pytest.mark.parametrize("inside", ["", "deep/er/"])
def test_a_file_beside_its_compressed_copy_is_refused(tmp_path, inside):
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(ROWS[0]).encode()
    (folder / "x.csv").write_text("text,label\na,1\n")
    (folder / "x.jsonl").write_bytes(content)
    assert len(rows(tmp_path)) == 2
    (folder / "x.jsonl.gz").write_bytes(gzip.compress(content))
    place = f"{tmp_path}/{inside}".removesuffix("/")
    assert refusal(tmp_path) == (
        f"{place}: holds x.jsonl and x.jsonl.gz, whose rows would be read twice; expected one of "
        "them, or a list of files in the spec"
    )
    listed = [str(folder / name) for name in ("x.jsonl", "x.jsonl.gz")]
    assert len(list(read_rows(listed))) == 2


@pytest.mark.parametrize("name", ["y.jsonl.bz2", "y.CSV.zip", "deep/y.parquet.gz", "y.json.xz"])
def test_data_in_a_compression_that_is_not_read_are_not_left_out(tmp_path, name):
    (tmp_path / "deep").mkdir()
    (tmp_path / "x.jsonl").write_text(json.dumps(ROWS[0]))
    for other in ("notes.zip", "readme.txt", "_y.jsonl.bz2", "y.jsonl.bak"):
        (tmp_path / other).write_text("not data")
    assert rows(tmp_path) == ROWS[:1]
    (tmp_path / name).write_text("data")
    assert refusal(tmp_path) == (
        f"{tmp_path}/{name}: compressed in a way that is not read; expected it unpacked, or a list "
        "of files in the spec"
    )


def test_a_link_to_a_file_that_is_missing_is_not_left_out(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(ROWS[0]))
    (tmp_path / "readme.txt").symlink_to(tmp_path / "nowhere.txt")
    assert rows(tmp_path) == ROWS[:1]
    (tmp_path / "y.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    assert refusal(tmp_path) == (f"{tmp_path}/y.jsonl: expected a file, given a link to nothing")
    (tmp_path / "nowhere.jsonl").write_text(json.dumps(ROWS[1]))
    (tmp_path / "y.jsonl").rename(tmp_path / "_y.jsonl")
    assert rows(tmp_path) == [ROWS[1], ROWS[0]]
