"""The same rows from every form of file; every fault told with its place; content, not names."""

import csv
import gzip
import json
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_ray.data.formats import FORMATS
from w2s_ray.data.sources import HubPart, data_identity, fingerprint, read_rows
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec

ROWS = [{"text": "one, two", "label": "a"}, {"text": 'a "word"\nand é', "label": "b"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def packed(content: bytes) -> bytes:
    """Without a time stamp: test processes must collect the same names of tests."""
    return gzip.compress(content, mtime=0)


def write(path: Path) -> Path:
    if ".jsonl" in path.name:
        contents = {".gz": packed(LINES), ".zst": zstd(LINES)}
        path.write_bytes(contents.get(path.suffix, LINES))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(ROWS)
        opened = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
        with opened(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
    elif path.name.endswith((".json", ".json.gz")):
        content = LINES if "lines" in path.name else json.dumps(ROWS, indent=1).encode()
        path.write_bytes(packed(content) if path.suffix == ".gz" else content)
    else:
        assert path.suffix == ".csv", "a new format is written here"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(ROWS)
    return path


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("rows.jsonl", [":1", ":2"]),
        ("rows.jsonl.gz", [":1", ":2"]),
        ("rows.jsonl.zst", [":1", ":2"]),
        ("rows.csv", [":2", ":3"]),
        ("rows.parquet", [": row 1", ": row 2"]),
        ("stream.arrow", [": row 1", ": row 2"]),
        ("file.arrow", [": row 1", ": row 2"]),
        ("rows.json", [":2", ":6"]),
        ("rows.json.gz", [":2", ":6"]),
        ("lines.json", [":1", ":2"]),
    ],
)
@pytest.mark.parametrize("as_uri", [False, True])
def test_every_form_gives_the_same_rows_and_says_where(tmp_path, name, places, as_uri):
    path = write(tmp_path / name)
    source = path.as_uri() if as_uri else str(path)
    found = list(read_rows(source))
    assert [row for _, row in found] == ROWS
    assert [where.removeprefix("file://") for where, _ in found] == [f"{path}{p}" for p in places]


def test_a_folder_is_its_data_files_but_no_hidden_ones(tmp_path):
    (tmp_path / "in" / "_cache").mkdir(parents=True)
    for name in ("b.jsonl", "in/a.csv", "in/.c.jsonl", "in/_cache/d.jsonl"):
        write(tmp_path / name)
    (tmp_path / "README.md").write_text("not data")
    for source in (str(tmp_path), tmp_path.as_uri()):
        places = [where for where, _ in read_rows(source)]
        assert [p.removeprefix("file://").removeprefix(f"{tmp_path}/") for p in places] == [
            *("b.jsonl:1", "b.jsonl:2", "in/a.csv:2", "in/a.csv:3")
        ]


NOT_UTF8 = (
    "expected text in UTF-8, given the byte 0xff (invalid start byte); save the file as UTF-8"
)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.jsonl", b'{"a": 1}\n\n{"a": \n', "x.jsonl:3: expected a JSON object"),
        ("x.jsonl", b'{"a": 1}\n[2]\n', "x.jsonl:2: expected a JSON object"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', f"x.jsonl:2: {NOT_UTF8}"),
        ("x.json", b'[{"a": 1},\n{"a": "\xff"}]\n', f"x.json:2: {NOT_UTF8}"),
        (
            "x.json",
            b"[" + b'{"a": "%s"},\n' % (b"a" * 999) * 3000 + b'{"a": "\xff"}]',
            "x.json:3001:",
        ),
        ("x.csv.gz", packed(b"a,b\n" + b"1,\xc3\xa9\n" * 5000 + b"1,\xff\n"), ":5002: exp"),
        ("x.csv", b"a,b\n1,2\n3\n", "x.csv:3: 1 cell under 2 column names"),
        ("x.csv", b'a,b\n"1\n2",2\n3,4,5\n', "x.csv:4: 3 cells under 2 column names"),
        ("x.csv", b"\xef\xbb\xbfa,b\n1,2\n1,\xff\n", f"x.csv:3: {NOT_UTF8}"),
        ("x.csv", b'a,b\n1,"2\n\xff"\n', f"x.csv:3: {NOT_UTF8}"),
        ("x.csv", b"a,b\r1,2\r3,\xff\r", f"x.csv:3: {NOT_UTF8}"),
        ("x.csv", b"a,b,b\n1,2,3\n", "x.csv:1: column name 'b' twice"),
        ("x.csv", b"a,b,c,b,c\n", "x.csv:1: column name 'b' twice"),
        ("x.csv", b'a,b\n"1" or 2,3\n', "x.csv:2: expected a row of CSV in UTF-8"),
        ("x.jsonl", b"[%s]\n" % (b"1" * 60), f"a JSON object, given b'[{'1' * 39}'"),
        ("x.jsonl", b'[{"a": 1}]\n', "given b'[{\"a\": 1}]\\n'; name a file with an array .json"),
        ("x.jsonl", b'{"a": ' + b"[" * 200_000, "x.jsonl:1: expected a JSON object per line"),
        ("x.json", b'{\n "a": 1\n}', "x.json:1: an object over several lines; expected an array"),
        ("x.json", b'[{"a": 1},\n 2]', "x.json:2: expected a JSON object in the array"),
        ("x.csv", b"a;b\n1;2\n", "x.csv:1: one column named 'a;b'; expected columns separated by"),
        ("x.arrow", b"ARROW1 is not enough", "x.arrow: cannot be read"),
        ("x.arrow", b"\xff\xff\xff\xff\x09", "x.arrow: cannot be read"),
        ("x.parquet", b"PAR1 is not enough", "x.parquet: cannot be read"),
        ("x.parquet.gz", b"", "x.parquet.gz: expected a file of .jsonl"),
        ("x.jsonl.gz", packed(LINES * 99)[:-20], "x.jsonl.gz: cannot be read"),
        ("x.jsonl.gz", LINES, "x.jsonl.gz: cannot be read"),
        ("x.jsonl.zst", zstd(LINES * 99)[:-9], "x.jsonl.zst: cannot be read"),
        ("x.txt", LINES, f"expected a file of {', '.join(FORMATS)} (.gz, .zst)"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused_with_its_place(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_rows(str(tmp_path / name)))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_field(tmp_path):
    for name, content in (("x.csv", b"text,label\nt,1\n"), ("x.jsonl", LINES)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"marked {name}").write_bytes(b"\xef\xbb\xbf" + content)
        plain, marked = (
            [row for _, row in read_rows(str(tmp_path / n))] for n in (name, f"marked {name}")
        )
        assert plain == marked and "text" in plain[0]


def test_a_cell_of_csv_may_have_any_length(tmp_path):
    cell = "word " * 60_000
    (tmp_path / "x.csv").write_text(f"text,label\n{cell},1\n")
    assert [row for _, row in read_rows(str(tmp_path / "x.csv"))] == [{"text": cell, "label": "1"}]


def test_line_ends_within_a_cell_stay_as_they_are(tmp_path):
    (tmp_path / "x.csv").write_bytes(b'text,label\r\n"one\r\ntwo",1\r\n')
    assert [row for _, row in read_rows(str(tmp_path / "x.csv"))] == [
        {"text": "one\r\ntwo", "label": "1"}
    ]


def test_sources_of_every_sort_may_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [{"text": "from the hub"}])
    path = write(tmp_path / "x.jsonl")
    found = list(read_rows(["hf:a/b", str(path)]))
    assert [where for where, _ in found] == ["hf:a/b: row 1", f"{path}:1", f"{path}:2"]
    for named in ("hf:a/b", "generate:agreement"):
        alone, both = fingerprint(named), fingerprint([named, str(path)])
        assert both["bytes"] is None and both["digest"] != alone["digest"]
        assert both == fingerprint([str(path), named])


def test_a_folder_that_is_named_is_read_whatever_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "_hidden" / "_data_"
    folder.mkdir(parents=True)
    path = write(folder / "x.jsonl")
    for source in (str(folder), f"{folder}/", folder.as_uri(), f"{folder.as_uri()}/"):
        prefix = "file://" if source.startswith("file:") else ""
        assert [where for where, _ in read_rows(source)] == [f"{prefix}{path}:{n}" for n in (1, 2)]


def test_the_reason_of_a_failure_is_told_in_its_first_line(monkeypatch):
    for raised, told in (
        (ValueError("no such thing.\nAnd more"), "no such thing"),
        (ConnectionError(), "ConnectionError"),
        (OSError("X"), "X"),
        (OSError("..."), ""),
    ):

        def load_dataset(*_: object, raised: Exception = raised, **__: object) -> None:
            raise raised

        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        with pytest.raises(InputError) as error:
            list(read_rows("hf:a/b", HubPart("s", "t", "r")))
        assert str(error.value) == (
            f"hf:a/b: cannot be loaded (subset s, split t, revision r): {told}; "
            "is the Hub reachable?"
        )


def test_the_reason_a_file_cannot_be_read_is_told(tmp_path):
    (tmp_path / "x.jsonl.gz").write_bytes(LINES)
    with pytest.raises(InputError, match=r"cannot be read: .*zlib inflate failed"):
        list(read_rows(str(tmp_path / "x.jsonl.gz")))
    with pytest.raises(InputError, match=r"cannot be reached: .*[Uu]nrecognized filesystem type"):
        list(read_rows("nowhere://bucket/x.jsonl"))


def test_a_name_that_is_not_there_suggests_the_nearest(tmp_path, monkeypatch):
    write(tmp_path / "ground_truth.jsonl")
    with pytest.raises(InputError, match=r"did you mean 'ground_truth\.jsonl'"):
        list(read_rows(str(tmp_path / "groundtruth.jsonl")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file of .* in this folder"):
        list(read_rows(str(tmp_path / "empty")))
    with pytest.raises(InputError) as error:
        list(read_rows(str(tmp_path / "no folder" / "x.jsonl")))
    assert str(error.value) == f"{tmp_path}/no folder/x.jsonl: no such file or folder"
    monkeypatch.chdir(tmp_path)
    for source in ("groundtruth.jsonl", "./groundtruth.jsonl/"):
        with pytest.raises(InputError, match=r"did you mean 'ground_truth\.jsonl'"):
            list(read_rows(source))


def test_the_hub_out_of_reach_is_one_line():
    with pytest.raises(InputError) as error:
        list(read_rows("hf:nobody/no-such-data", HubPart("sub", "train", "main")))
    told = str(error.value)
    assert told.startswith("hf:nobody/no-such-data: cannot be loaded")
    assert "reachable" in told
    assert "\n" not in told


def test_a_hub_data_set_gives_the_rows_of_the_split_asked_for(tmp_path, monkeypatch):
    import datasets

    load = datasets.load_dataset

    def from_folder(name, *part, **how):
        return load(str(tmp_path / name), *part, **how)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "some" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        row = {"split": split, "chosen": [{"role": "user", "content": "a"}]}
        (tmp_path / "some" / "data" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    assert list(read_rows("hf:some/data", HubPart(split="test"))) == [
        ("hf:some/data: row 1", {"split": "test", "chosen": [{"role": "user", "content": "a"}]})
    ]
    both = [row["split"] for _, row in read_rows("hf:some/data", HubPart(split="train+test"))]
    assert both == ["train", "test"]
    for folder, answer in (("mild/base", "b"), ("strong", "c")):
        (tmp_path / "some" / "data" / folder).mkdir(parents=True)
        (tmp_path / "some" / "data" / folder / "train.jsonl").write_text(
            f'{{"text": "{answer}"}}\n'
        )
        source = f"hf:some/data/{folder}"
        assert list(read_rows(source)) == [(f"{source}: row 1", {"text": answer})]
    with pytest.raises(InputError, match=r"split 'nope'|nope"):
        list(read_rows("hf:some/data", HubPart(split="nope")))
    # The Hub's client would read a folder of that name below the current one in the Hub's stead.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"hf:some/data: some/data is also a folder here"):
        list(read_rows("hf:some/data", HubPart(split="test")))


def test_the_fingerprint_is_of_content_not_of_names_or_order(tmp_path):
    first, second = write(tmp_path / "one.jsonl"), write(tmp_path / "two.csv")
    both = fingerprint([str(first), str(second)])
    assert both["bytes"] == first.stat().st_size + second.stat().st_size
    assert fingerprint([str(second), str(first)]) == both
    assert fingerprint(str(tmp_path)) == both == fingerprint(tmp_path.as_uri())
    moved = first.rename(tmp_path / "a new name.jsonl")
    assert fingerprint([str(moved), str(second)]) == both
    moved.write_bytes(moved.read_bytes() + b"\n")
    assert fingerprint([str(moved), str(second)])["digest"] != both["digest"]
    assert fingerprint([str(second), str(second)])["digest"] != fingerprint(str(second))["digest"]


def test_the_size_of_a_source_is_that_of_its_files(tmp_path):
    large = tmp_path / "large.jsonl"
    large.write_bytes(LINES * 40_000)
    assert large.stat().st_size > 3 << 20
    packed = write(tmp_path / "x.jsonl.gz")
    sizes = large.stat().st_size, packed.stat().st_size
    assert tuple(fingerprint(str(path))["bytes"] for path in (large, packed)) == sizes
    assert fingerprint(str(tmp_path))["bytes"] == sum(sizes)


def test_the_same_bytes_read_as_another_format_are_another_source(tmp_path):
    (tmp_path / "x.csv").write_bytes(b'{"a"}')
    (tmp_path / "x.jsonl").write_bytes(b'{"a"}')
    one, two = (fingerprint(str(tmp_path / name)) for name in ("x.csv", "x.jsonl"))
    assert one["bytes"] == two["bytes"]
    assert one["digest"] != two["digest"]


def test_sources_that_are_not_files_are_known_by_all_that_chooses_their_content(monkeypatch):
    def no_network(*_: object) -> None:
        raise AssertionError("a fingerprint of a name needs no network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    parts = [HubPart(), HubPart("s"), HubPart(split="test"), HubPart(revision="r")]
    found = [fingerprint("hf:a/b", part) for part in parts]
    found += [fingerprint("hf:a/c"), fingerprint("generate:agreement")]
    monkeypatch.setattr("w2s_ray.data.agreement.VERSION", 10**6)
    found.append(fingerprint("generate:agreement"))
    assert len({one["digest"] for one in found}) == len(found)
    assert {one["bytes"] for one in found} == {None}


def test_the_identity_of_data_holds_no_path_and_every_choice(tmp_path):
    def spec(folder: Path, **changes: object) -> DataSpec:
        splits = {name: (str(folder / f"{name}.csv"),) for name in ("ground_truth", "weak", "test")}
        return DataSpec.model_validate({"kind": "classification", "splits": splits, **changes})

    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for name in ("ground_truth", "weak", "test"):
            (tmp_path / place / f"{name}.csv").write_text(f"text,label\n{name},1\n")
    here = data_identity(spec(tmp_path / "here"))
    assert here == data_identity(spec(tmp_path / "there"))
    assert str(tmp_path) not in json.dumps(here)
    changed: list[dict[str, object]] = [
        {"seed": 1},
        {"sizes": {"test": 1}},
        {"columns": {"text": "t"}},
    ]
    others = [data_identity(spec(tmp_path / "here", **change)) for change in changed]
    (tmp_path / "there" / "weak.csv").write_text("text,label\nweak,2\n")
    others.append(data_identity(spec(tmp_path / "there")))
    assert here not in others
    assert len({json.dumps(other) for other in others}) == len(others)


def test_the_identity_of_hub_data_is_of_its_subset_split_and_revision():
    splits = {name: [f"hf:a/{name}"] for name in ("ground_truth", "weak", "test")}
    sizes = dict.fromkeys(splits, 5)
    for content in ({"source": "hf:a/b", "sizes": sizes}, {"splits": splits}):
        found = [
            data_identity(DataSpec.model_validate({"kind": "preference", **content, **change}))
            for change in ({}, {"subset": "s"}, {"split": "s"}, {"revision": "s"})
        ]
        assert len({json.dumps(one) for one in found}) == 4
