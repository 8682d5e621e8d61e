"""Bad data files, each with a fragment of the line that refuses it."""

import gzip
import os
from collections.abc import Iterator

import pyarrow as pa

from tests.testing.bad_data_writers import (
    LONG,
    MEBIBYTE,
    NUMBERED,
    ROW,
    TEXT_ROW,
    BadData,
    _many,
    _nested,
    _socket,
    _views,
    _wide,
    arrow,
    bomb,
    content,
    damaged,
    folder,
    link,
    repeated,
    row,
    sparse,
    table,
    text_row,
)

PAIRS = {"chosen": ["yes"] * 4, "rejected": ["no"] * 4}
PARQUET = table(PAIRS)
ARROW = arrow(("chosen", pa.array(PAIRS["chosen"])), ("rejected", pa.array(PAIRS["rejected"])))

LINES: tuple[BadData, ...] = (
    BadData("words.jsonl", content(b"not JSON\n"), ":1: expected a JSON object per line"),
    BadData("cut.jsonl", content(ROW + ROW[:-9]), ":2: expected a JSON object per line"),
    BadData("array.jsonl", content(b"[1, 2]\n"), ":1: expected a JSON object, given b'[1, 2]"),
    BadData("number.jsonl", content(b"17\n"), ":1: expected a JSON object, given b'17"),
    BadData("null.jsonl", content(b"null\n"), ":1: expected a JSON object, given b'null"),
    BadData("text.jsonl", content(b'"a"\n'), ":1: expected a JSON object, given"),
    BadData("two.jsonl", content(ROW.strip() + ROW), ":1: expected a JSON object per line: Extra"),
    BadData("utf16.jsonl", content(ROW.decode().encode("utf-16")), "is UTF-16; save it as UTF-8"),
    BadData("utf32.jsonl", content(ROW.decode().encode("utf-32")), "is UTF-16; save it as UTF-8"),
    BadData("latin.jsonl", content(b'{"chosen": "\xe9"}\n'), ":1: expected text in UTF-8"),
    BadData("zeros.jsonl", content(b"\0" * 999), ":1: expected text in UTF-8, given the byte 0x00"),
    BadData("control.jsonl", content(b'{"chosen": "a\x00b"}\n'), "Invalid control character"),
    BadData("deep.jsonl", content(b"[" * 200_000), "limit json.depth"),
    BadData("deeper.jsonl", content(b'{"a":' * 900_000), "limit json.depth"),
    BadData("deep_value.jsonl", row(chosen=_nested(101), rejected="no"), "limit json.depth"),
    BadData("long_line.jsonl", sparse(ROW, 200 * MEBIBYTE), ":2: a row too long: given more than"),
    BadData("long_text.jsonl", row(chosen="x" * (17 * MEBIBYTE), rejected="n"), "a row too long"),
    BadData("spaces.jsonl", content(b" " * (17 * MEBIBYTE)), ":1: a row too long"),
    BadData("blank.jsonl", content(b"\n" * 1_000_002), ":1000001: blank lines: given more than"),
    BadData("empty.jsonl", content(b""), "0 of 0 rows are usable"),
    BadData("only_blank.jsonl", content(b"\n \n\t\n"), "0 of 0 rows are usable"),
    BadData("digits.jsonl", content(b'{"chosen": %s}\n' % (b"9" * 9_000)), "4300 digits"),
    BadData("name.jsonl", row(**{"n" * 10 * MEBIBYTE: 1}), "limit column_name.characters"),
    BadData("names.jsonl", content(_wide(20_000)), "limit data.columns"),
    BadData("missing.jsonl", row(chosen="yes"), ":2: field 'rejected' is missing"),
    BadData("many_missing.jsonl", content(_wide(9_999)), "and 9,949 more"),
    BadData("no_value.jsonl", row(chosen="yes", rejected=None), "'rejected' has no value"),
    BadData("type.jsonl", row(chosen=1, rejected=2), "field 'chosen' is 1; expected a text"),
    BadData("types.jsonl", row(chosen="a", rejected=["b"]), "expected a text, like chosen"),
    BadData("text.jsonl", row(chosen="x" * 4_000_001, rejected="n"), "limit text.characters"),
    BadData("role.jsonl", row(chosen=[{"role": "x"}], rejected=[]), "a role of system"),
    BadData("message.jsonl", row(chosen=[1], rejected=[2]), "expected {role, content}"),
    BadData("literal.jsonl", row(chosen="[{'role': x}]", rejected="no"), "neither JSON nor Python"),
    BadData(
        "literals.jsonl",
        row(chosen=f"[{{'role': {'[' * 999_000}}}]", rejected="no"),
        "neither JSON nor Python",
    ),
    BadData(
        "long_literal.jsonl",
        row(chosen=f"[{{'role': 'user'}}{', 1' * 1_000_000}]", rejected="no"),
        "that JSON cannot read",
    ),
)

TEXTS: tuple[BadData, ...] = (
    BadData("label.jsonl", text_row(label="x" * (10 * MEBIBYTE)), "limit label.characters"),
    BadData("digits_label.jsonl", text_row(label="9" * 5_000), "limit label.characters"),
    BadData("list_label.jsonl", text_row(label=[1]), "expected an integer or a text"),
    BadData("half.jsonl", text_row(label=0.5), "expected an integer or a text"),
    BadData("nan.jsonl", content(b'{"text": "a", "label": NaN}\n'), "label"),
    BadData("infinite.jsonl", content(b'{"text": "a", "label": 1e999}\n'), "an integer or a text"),
    BadData(
        "mixed.jsonl",
        content(TEXT_ROW + NUMBERED),
        "among integers such as 3",
    ),
    BadData(
        "one_class.jsonl",
        content(NUMBERED),
        "expected at least two classes",
    ),
    BadData("long.jsonl", text_row(text="x" * 4_000_001), "limit text.characters"),
    BadData("object.jsonl", text_row(text={"a": 1}), "expected a text or a list"),
    BadData(
        "decimal.parquet",
        table(
            {"text": ["a"], "label": pa.array([None], pa.decimal128(38, 0))},
        ),
        "'label' has no value",
    ),
    BadData("large.parquet", table({"text": [1], "label": ["x"]}), "expected a text or a list"),
)

CELLS: tuple[BadData, ...] = (
    BadData("header.csv", content(b"chosen,rejected\n"), "0 of 0 rows are usable"),
    BadData("none.csv", content(b""), "0 of 0 rows are usable"),
    BadData("cells.csv", content(b"chosen,rejected\n1,2\n3\n"), ":3: 1 cell under 2 column names"),
    BadData("twice.csv", content(b"chosen,chosen\n1,2\n"), "column name 'chosen' twice"),
    BadData("marks.csv", content(b"chosen;rejected\n1;2\n"), "separated by commas, not by ';'"),
    BadData("quote.csv", content(b'chosen,rejected\n"1,2\n'), ":2: expected a row of CSV"),
    BadData("after.csv", content(b'chosen,rejected\n"1" or,2\n'), ":2: expected a row of CSV"),
    BadData(
        "open_quote.csv",
        content(b'chosen,rejected\n"' + b"some text\n" * 2_000_000),
        "a row too long",
    ),
    BadData("many_cells.csv", content(b'a,b\n"x\n"' + b',"x\n"' * 4_000_000), "a row too long"),
    BadData("line.csv", sparse(b"chosen,rejected\n", 200 * MEBIBYTE), ":2: a row too long"),
    BadData("latin.csv", content(b"chosen,rejected\n1,\xe9\n"), ":2: expected text in UTF-8"),
    BadData("utf16.csv", content("a,b\n".encode("utf-16")), "is UTF-16; save it as UTF-8"),
    BadData("wide.csv", content(_many(20_000)), "limit data.columns"),
    BadData("wider.csv", content(_many(1_000_000)), "limit data.columns"),
    BadData("name.csv", content(b"n" * 5_000 + b",b\n1,2\n"), "limit column_name.characters"),
    BadData("blank.csv", content(b"a,b\n" + b"\n" * 1_000_002), "blank lines: given more than"),
    BadData("no_names.csv", content(b"yes,no\nyes,no\n"), "the first line one with the names"),
)

ARRAYS: tuple[BadData, ...] = (
    BadData("open.json", content(b"["), "expected a JSON object in the array, given the end"),
    BadData("cut.json", content(b"[" + ROW[:-5]), ":1: expected an array of objects"),
    BadData("comma.json", content(b"[" + ROW + b",]"), "expected a JSON object after ','"),
    BadData("number.json", content(b"[" + ROW + b", 2]"), "expected a JSON object in the array"),
    BadData("more.json", content(b"[]\n" + ROW), ":2: expected the end of the file after"),
    BadData("lines.json", content(b'{\n "chosen": 1\n}'), "an object over several lines"),
    BadData("deep.json", content(b'[{"a":' + b"[" * 200_000), "limit json.depth"),
    BadData(
        "deep_value.json", content(b'[{"a":%s1%s}]' % (b"[" * 101, b"]" * 101)), "limit json.depth"
    ),
    BadData("long.json", content(b'[{"a": "' + b"x" * (17 * MEBIBYTE)), "a row too long"),
    BadData("long_row.json", content(b'[{"a": "%s"}]' % (b"x" * 17 * MEBIBYTE)), "a row too long"),
    BadData("latin.json", content(b'[{"a": "\xe9"}]'), ":1: expected text in UTF-8"),
    BadData("space.json", content(b"[" + b" " * (65 * MEBIBYTE)), "white space: given more than"),
    BadData("early.json", content(b'[{"a": x},' + b" " * (17 * MEBIBYTE)), "Expecting value"),
)

PACKED: tuple[BadData, ...] = (
    BadData("zeros.jsonl.gz", bomb(b"\0" * (16 * MEBIBYTE), 256), "unpack to more than 200 times"),
    BadData("lines.jsonl.gz", bomb(b"\n" * (16 * MEBIBYTE), 256), "unpack to more than 200 times"),
    BadData("rows.csv.gz", bomb(b"a,b\n" * (4 * MEBIBYTE), 256), "unpack to more than 200 times"),
    BadData(
        "spaces.json.gz", content(gzip.compress(b"[" + b" " * (65 * MEBIBYTE), 1)), "unpack to"
    ),
    BadData("zeros.jsonl.zst", bomb(b"\0" * (16 * MEBIBYTE), 256, "zstd"), "unpack to more than"),
    BadData(
        "rows.jsonl.zst",
        bomb(b'{"chosen": "%s", "rejected": "no"}\n' % (b"y" * 9_000) * 1_000, 99, "zstd"),
        "unpack to more than 200 times as much",
    ),
    BadData(
        "rows.jsonl.gz",
        bomb(b'{"chosen": "%s", "rejected": "no"}\n' % (b"y" * 9_000) * 1_000, 99),
        "unpack to more than 200 times as much",
    ),
    BadData("plain.jsonl.gz", content(ROW), "cannot be read"),
    BadData("plain.jsonl.zst", content(ROW), "cannot be read"),
    BadData("cut.jsonl.gz", content(gzip.compress(ROW * 99, mtime=0)[:-9]), "cannot be read"),
    BadData("sum.jsonl.gz", content(gzip.compress(ROW * 99, mtime=0)[:-8] + b"\0" * 8), "cannot"),
    BadData("twice.jsonl.gz", bomb(gzip.compress(ROW, mtime=0), 1), ":1: expected"),
    BadData("packed.jsonl", bomb(ROW, 1), "is compressed by gzip; name it packed.jsonl.gz"),
    BadData("packed.csv", bomb(ROW, 1, "zstd"), "is compressed by zstd; name it packed.csv.zst"),
)

COLUMNS: tuple[BadData, ...] = (
    BadData(
        "dictionary.parquet",
        table({"chosen": repeated(LONG, 4_096), "rejected": repeated(LONG, 4_096)}),
        "unpack to more than 200 times as much",
    ),
    BadData(
        "nested.parquet",
        table(
            {
                "chosen": pa.ListArray.from_arrays(
                    pa.array([0, 8_000], pa.int32()), repeated(LONG, 8_000)
                )
            }
        ),
        "unpack to more than 200 times as much",
    ),
    BadData(
        "numbers.parquet",
        table({"chosen": repeated(1, 20_000_000), "rejected": repeated(1, 20_000_000)}),
        "unpack to more than 200 times as much",
    ),
    BadData(
        "prefixes.parquet",
        table({"chosen": [LONG] * 200}, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY"),
        "unpack to more than 200 times as much",
    ),
    BadData("row.parquet", table({"chosen": [LONG * 17, "a"]}), "row 1: a row too long"),
    BadData("words.parquet", content(b"PAR1 is not enough"), "cannot be read"),
    BadData("empty.parquet", content(b""), "cannot be read"),
    BadData("cut.parquet", damaged(PARQUET, lambda data: data[:-9]), "cannot be read"),
    BadData(
        "footer.parquet",
        damaged(PARQUET, lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1"),
        "cannot be read",
    ),
    BadData(  # a histogram of three levels for a column of one, at which pyarrow aborted
        "statistics.parquet",
        damaged(PARQUET, lambda data: data.replace(b"\x19\x06\x19", b"\x19\x37\x19", 1)),
        "cannot be read",
    ),
    BadData(
        "pages.parquet",
        damaged(PARQUET, lambda data: data[:4] + b"\xff" * 40 + data[44:]),
        "cannot be read",
    ),
    BadData("arrow.parquet", damaged(PARQUET, lambda data: b"ARROW1" + data), "cannot be read"),
    BadData("numbers_only.parquet", table({"a": [1]}), "field 'chosen' is missing"),
    BadData("words.arrow", content(b"ARROW1 is not enough"), "cannot be read"),
    BadData("empty.arrow", content(b""), "cannot be read"),
    BadData("length.arrow", content(b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\0" * 99), "cannot be"),
    BadData("cut.arrow", damaged(ARROW, lambda data: data[:-20]), "cannot be read"),
    BadData("half.arrow", damaged(ARROW, lambda data: data[: len(data) // 2]), "cannot be read"),
    BadData(
        "dictionary.arrow",
        arrow(("chosen", repeated(LONG, 4_096)), ("rejected", repeated(LONG, 4_096))),
        "unpack to more than 200 times as much",
    ),
    BadData(
        "dictionary_stream.arrow",
        arrow(("chosen", repeated(LONG, 4_096)), stream=True),
        "unpack to more than 200 times as much",
    ),
    BadData(
        "views.arrow", arrow(("chosen", _views(4_096))), "unpack to more than 200 times as much"
    ),
    BadData(
        "runs.arrow",
        arrow(("chosen", pa.RunEndEncodedArray.from_arrays([2_000_000_000], [LONG]).slice(0, 9))),
        "a column of type run_end_encoded",
    ),
    BadData(
        "list_views.arrow",
        arrow(("chosen", pa.ListViewArray.from_arrays([0, 0], [1, 1], pa.array(["a"])))),
        "a column of type list_view",
    ),
    BadData(
        "twice.arrow",
        arrow(("chosen", pa.array(["a"])), ("chosen", pa.array(["b"]))),
        "column name 'chosen' twice",
    ),
)

FILES: tuple[BadData, ...] = (
    BadData("fifo.jsonl", os.mkfifo, "given a FIFO (named pipe), expected a regular file"),
    BadData("fifo.parquet", os.mkfifo, "given a FIFO (named pipe), expected a regular file"),
    BadData("socket.jsonl", _socket, "given a socket, expected a regular file"),
    BadData("zero.jsonl", link("/dev/zero"), "given a device, expected a regular file"),
    BadData("null.csv", link("/dev/null"), "given a device, expected a regular file"),
    BadData("nothing.jsonl", link("absent"), "no such file or folder"),
    BadData("itself.jsonl", link("itself.jsonl"), "itself.jsonl"),
    BadData("absent.jsonl", lambda path: None, "no such file or folder"),
    BadData("n" * 255 + ".jsonl", lambda path: None, "cannot be reached"),
    BadData("zero\0byte.jsonl", lambda path: None, "jsonl"),
    BadData("words.txt", content(ROW), "expected a file of .jsonl"),
    BadData("pointer.jsonl", content(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    BadData("annex.jsonl", content(b"/annex/objects/SHA256E-s1--0\n"), "git annex get"),
    BadData("page.jsonl", content(b"<!DOCTYPE html><html></html>"), "is a web page"),
    BadData("none", folder(), "no file of .jsonl"),
    BadData("fifo_in", folder(a__jsonl=ROW, b__jsonl=os.mkfifo), "b.jsonl: given a FIFO"),
    BadData("socket_in", folder(a__jsonl=ROW, b__csv=_socket), "b.csv: given a socket"),
    BadData("device_in", folder(a__jsonl=link("/dev/zero")), "a.jsonl: given a device"),
    BadData("nothing_in", folder(a__jsonl=link("b")), "given a link to nothing"),
    BadData("copies", folder(a__jsonl=ROW, a__jsonl__gz=bomb(ROW, 1)), "would be read twice"),
    BadData("bz2", folder(a__jsonl=ROW, a__jsonl__bz2=b"BZh"), "compressed in a way"),
    BadData("state", folder(state__json=b"[" * 9_999, a__arrow=ARROW), "limit json.depth"),
    BadData("states", folder(state__json=b"{}", a__arrow=ARROW), "expected the state of a data"),
    BadData(
        "shard",
        folder(state__json=b'{"_data_files": [{"filename": "b.arrow"}]}', a__arrow=ARROW),
        "b.arrow: no such file, but state.json lists it",
    ),
    BadData(
        "shards",
        folder(state__json=b'{"_data_files": [{"filename": [1]}]}', a__arrow=ARROW),
        "expected the state of a data set",
    ),
    BadData("endless", folder(state__json=sparse(b"{", 1 << 40), a__arrow=ARROW), "state.json"),
)


def bad_data() -> Iterator[BadData]:
    """All of them."""
    yield from (*LINES, *CELLS, *ARRAYS, *PACKED, *COLUMNS, *FILES)
    yield from (case._replace(kind="classification") for case in TEXTS)
