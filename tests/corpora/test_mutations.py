"""Files a little different from valid ones are read or refused in one line, and nothing else."""

import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.testing.fuzzing import fuzzed
from tests.testing.gguf_file import write_gguf
from tests.testing.mutations import mutated
from w2s_ray.catalog.configs import config_fields
from w2s_ray.catalog.gguf_header import read_gguf_header
from w2s_ray.catalog.identity import tokenizer_identity, weights_identity
from w2s_ray.catalog.random_init import complete_config
from w2s_ray.catalog.vocabularies import read_vocabulary
from w2s_ray.data.prepare import prepare
from w2s_ray.data.sources import data_identity
from w2s_ray.errors import InputError
from w2s_ray.foreign.safetensors_header import read_safetensors_header
from w2s_ray.models.tokenizer import bytes_tokenizer, load_tokenizer
from w2s_ray.spec.schema import DataSpec, ModelSpec

MUTATED = fuzzed(60)
ROWS = [
    {"prompt": f"p{n}", "chosen": [{"role": "user", "content": f"é{n}"}], "rejected": []}
    for n in range(9)
]
TEXTS = [{"text": f"a, {n}", "label": f"{n % 2}"} for n in range(9)]


Write = Callable[[pa.Table, pa.BufferOutputStream], None]


def table(rows: list[dict[str, Any]], write: Write) -> bytes:
    """The bytes of a table in a format."""
    sink = pa.BufferOutputStream()
    write(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


def arrow(rows: pa.Table, sink: pa.BufferOutputStream) -> None:
    """An Arrow file."""
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CELLS = b'text,label\n"a ""b"" c",1\n' + b"".join(b"x%d,%d\n" % (n, n % 2) for n in range(9))
DATA: dict[str, tuple[bytes, str]] = {
    "pairs.jsonl": (LINES, "preference"),
    "pairs.json": (json.dumps(ROWS, indent=1).encode(), "preference"),
    "pairs.jsonl.gz": (gzip.compress(LINES, mtime=0), "preference"),
    "pairs.jsonl.zst": (bytes(pa.compress(LINES, codec="zstd", asbytes=True)), "preference"),
    "pairs.parquet": (table(ROWS, pq.write_table), "preference"),
    "pairs.arrow": (table(ROWS, arrow), "preference"),
    "texts.jsonl": ("".join(json.dumps(row) + "\n" for row in TEXTS).encode(), "classification"),
    "texts.csv": (CELLS, "classification"),
    "texts.parquet": (table(TEXTS, pq.write_table), "classification"),
    "texts.arrow": (table(TEXTS, arrow), "classification"),
}


def read_or_refused(read: Callable[[], object]) -> None:
    """Runs a reader, which may refuse in one printable line."""
    line = ""
    try:
        read()
    except InputError as error:
        line = str(error)
    assert line.isprintable()


@pytest.mark.parametrize("name", DATA)
@MUTATED
@given(data=st.data())
def test_data(name: str, data: st.DataObject) -> None:
    content, kind = DATA[name]
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data.draw(mutated(content)))
        spec = DataSpec.model_validate(
            {
                "kind": kind,
                "source": str(path),
                "sizes": {"ground_truth": 1, "weak": 1, "test": 1},
            }
        )
        read_or_refused(lambda: (data_identity(spec), prepare(spec)))


@cache
def valid(name: str) -> bytes:
    """The bytes of a valid file of a model."""
    if name == "config.json":
        return json.dumps({**complete_config("llama", {}, 257), "model_type": "llama"}).encode()
    if name == "tokenizer.json":
        return bytes_tokenizer().backend_tokenizer.to_str().encode()
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name == "model.safetensors":
            save_file({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float16)}, path)
        elif name == "model.safetensors.index.json":
            path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "x.safetensors"}}))
        else:
            write_gguf(path)
        return path.read_bytes()


def model_folder(folder: Path, name: str, content: bytes) -> Path:
    """A folder with valid files, but for one."""
    names = {"config.json", "tokenizer.json", "model.safetensors"}
    if name == "model.safetensors.index.json":
        names.remove("model.safetensors")
        (folder / "x.safetensors").write_bytes(valid("model.safetensors"))
    for other in names:
        (folder / other).write_bytes(valid(other))
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"]
)
@MUTATED
@given(data=st.data())
def test_folders(name: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    # A type that no formula is for would be measured in another process.
    monkeypatch.setattr("w2s_ray.catalog.shapes.measured", refuse)
    with TemporaryDirectory() as temporary:
        monkeypatch.setenv("W2S_CACHE", f"{temporary}/cache")
        folder = Path(temporary) / "m"
        folder.mkdir()
        model_folder(folder, name, data.draw(mutated(valid(name))))
        read_or_refused(lambda: weights_identity(ModelSpec(source=str(folder))))
        read_or_refused(lambda: tokenizer_identity(str(folder)))
        if name == "model.safetensors":
            read_or_refused(lambda: read_safetensors_header(folder / name))
        if name == "tokenizer.json":
            read_or_refused(lambda: vocabulary_and_tokenizer(folder))


def vocabulary_and_tokenizer(folder: Path) -> None:
    """Reads a tokenizer as the checks before a run do."""
    read_vocabulary(folder / "tokenizer.json", "tokenizer")
    load_tokenizer(ModelSpec(source=str(folder)))


def refuse(*_: object) -> None:
    """Stands for the program that measures models."""
    raise InputError("not measured here")


@MUTATED
@given(data=st.data())
def test_gguf(data: st.DataObject) -> None:
    content = valid("model.gguf")
    metadata = data.draw(mutated(content[:5_000])) + content[5_000:]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(metadata)
        read_or_refused(lambda: read_gguf_header(path))
        read_or_refused(lambda: config_fields(ModelSpec(source=str(path))))
