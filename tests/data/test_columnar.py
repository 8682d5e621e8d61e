"""Columnar files give the rows that were written, however their values are stored."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_ray.data.sources import read_rows

MESSAGES = [
    [{"role": "user", "content": f"q{n % 3}"}, {"role": "tool", "content": None}] for n in range(9)
]
ROWS = [
    {"a": f"é{n % 2}" if n else None, "b": MESSAGES[n] if n != 4 else None, "c": n, "d": n / 2}
    for n in range(9)
]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_dictionary": False},
        {"use_dictionary": ["a"]},
        {"use_dictionary": False, "column_encoding": {"a": "DELTA_BYTE_ARRAY"}},
        {"row_group_size": 2, "store_schema": False},
        {"dictionary_pagesize_limit": 1, "data_page_version": "2.0"},
    ],
)
def test_parquet_in_every_encoding(how, tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet", **how)
    found = list(read_rows(str(tmp_path / "x.parquet")))
    assert [row for _, row in found] == ROWS
    assert [place for place, _ in found] == [f"{tmp_path}/x.parquet: row {n}" for n in range(1, 10)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b" * 20, "a"]),
        pa.array(["a", None, "b" * 20, "a"], pa.large_string()),
        pa.array(["a", None, "b" * 20, "a"], pa.string_view()),
        pa.array(["a", None, "b" * 20, "a"]).dictionary_encode(),
        pa.array([["a"], None, [], ["a", None]]),
        pa.array([["a"], None, [], ["a", None]], pa.large_list(pa.string_view())),
        pa.array([[("k", "v")], None, [], [("k", None)]], pa.map_(pa.string(), pa.string())),
        pa.array([{"x": "a"}, None, {"x": None}, {"x": "b"}]),
        pa.array([None] * 4, pa.null()),
        pa.array([1, None, 2, 3], pa.decimal128(9, 2)),
        pa.array([True, None, False, True]),
        pa.array([0, None, 1, 2], pa.timestamp("ms", "UTC")),
    ],
    ids=lambda column: str(column.type),
)
def test_arrow_of_every_type(column, tmp_path):
    batch = pa.RecordBatch.from_arrays([column], ["a"])
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch.slice(1, 2))
    expected = batch.to_pylist() + batch.slice(1, 2).to_pylist()
    assert [row for _, row in read_rows(str(tmp_path / "x.arrow"))] == expected


def test_rows_larger_than_a_slice_come_in_order(tmp_path):
    texts = [f"{n}" * 6_000_000 for n in range(9)]
    batch = pa.RecordBatch.from_pydict({"a": texts})
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    places, rows = zip(*read_rows(str(tmp_path / "x.arrow")), strict=True)
    assert [row["a"][0] for row in rows] == [str(n) for n in range(9)]
    assert places[-1].endswith("row 9")
