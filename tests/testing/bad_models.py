"""Bad model folders and files, each with a fragment of the line that refuses it."""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.testing.bad_model_changes import (
    INDEX,
    MEBIBYTE,
    UP,
    WEIGHTS,
    BadModel,
    array,
    as_dtype,
    config,
    cut,
    fields,
    fifo,
    fifo_in_index,
    gguf_tensor,
    gguf_text,
    index,
    number_at,
    pickled,
    remade,
    replaced,
    safetensors,
    sparse,
    stretched,
    tensor,
    texts,
    tokenizer,
    weights,
    whole,
    without,
    written,
)

FOLDERS: tuple[BadModel, ...] = (
    BadModel("no folder", shutil.rmtree, "no such folder or file"),
    BadModel("no config", without("config.json"), "expected a config.json in the folder"),
    BadModel("no weights", without(WEIGHTS), "expected model.safetensors or"),
    BadModel("no tokenizer", without("tokenizer.json"), "tokenizer"),
    BadModel("config is a FIFO", replaced("config.json", os.mkfifo), "given a FIFO (named pipe)"),
    BadModel("config is a folder", replaced("config.json", Path.mkdir), "given a folder"),
    BadModel(
        "config is endless",
        replaced("config.json", lambda path: path.symlink_to("/dev/zero")),
        "config.json: given a device, expected a regular file",
    ),
    BadModel(
        "config is a link to itself",
        replaced("config.json", lambda path: path.symlink_to("config.json")),
        "config.json: cannot be read: Too many levels of symbolic links",
    ),
    BadModel(
        "weights are a link to nothing",
        replaced(WEIGHTS, lambda path: path.symlink_to("absent")),
        "model.safetensors: cannot be read: No such file",
    ),
    BadModel("weights are a FIFO", replaced(WEIGHTS, os.mkfifo), "model.safetensors: given a FIFO"),
    BadModel("weights are a folder", replaced(WEIGHTS, Path.mkdir), "given a folder"),
    BadModel("tokenizer is a FIFO", replaced("tokenizer.json", os.mkfifo), "given a FIFO"),
    BadModel("words are a FIFO", replaced("added_tokens.json", os.mkfifo), "added_tokens.json"),
    BadModel("template is a FIFO", replaced("chat_template.jinja", os.mkfifo), "given a FIFO"),
    BadModel("index is a FIFO", replaced(INDEX, os.mkfifo), "index.json: given a FIFO"),
    BadModel("adapter", written("adapter_config.json", "{}"), "the folder holds an adapter"),
    BadModel("pointer", written(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "LFS"),
)

CONFIGS: tuple[BadModel, ...] = (
    BadModel("not JSON", written("config.json", "model_type: qwen2"), "not readable as JSON"),
    BadModel("cut off", written("config.json", '{"model_type": "qw'), "not readable as JSON"),
    BadModel("empty", written("config.json", ""), "not readable as JSON"),
    BadModel("list", written("config.json", "[]"), "config.json: expected a JSON object"),
    BadModel("null", written("config.json", "null"), "config.json: expected a JSON object"),
    BadModel("not UTF-8", written("config.json", b'{"a": "\xff"}'), "not readable as JSON"),
    BadModel("aliases", written("config.json", "a: &a [1]\nb: [*a, *a]\n"), "not readable as JSON"),
    BadModel("deep list", written("config.json", "[" * 200_000), "limit json.depth"),
    BadModel("deep object", written("config.json", '{"a":' * 90_000), "limit json.depth"),
    BadModel("deep value", config(a=json.loads("[" * 101 + "]" * 101)), "limit json.depth"),
    BadModel("long number", written("config.json", '{"a": %s}' % ("9" * 9_000)), "4300 digits"),
    BadModel("NaN", config(rms_norm_eps=float("nan")), "rms_norm_eps: given NaN"),
    BadModel("huge", sparse("config.json", 1 << 40), "limit config.bytes"),
    BadModel("huge settings", sparse("tokenizer_config.json", 1 << 40), "limit tokenizer.bytes"),
    BadModel("settings", written("tokenizer_config.json", "{"), "tokenizer_config.json: not read"),
    BadModel("no type", config(model_type=None), "expected the name of an architecture"),
    BadModel("type of another kind", config(model_type=7), "expected the name of an architecture"),
    BadModel("unknown type", config(model_type="none_such"), "none_such"),
    BadModel("vision", config(model_type="clip"), "clip"),
    BadModel("blocks", config(num_hidden_layers=10_000_000), "limit model.blocks"),
    BadModel("no blocks", config(num_hidden_layers=0), "num_hidden_layers: given 0"),
    BadModel("blocks as text", config(num_hidden_layers="3"), "num_hidden_layers: given '3'"),
    BadModel("blocks as list", config(num_hidden_layers=[3]), "num_hidden_layers: given [3]"),
    BadModel("blocks missing", config(num_hidden_layers=None), "num_hidden_layers"),
    BadModel("vocabulary", config(vocab_size=10**12), "limit model.vocabulary"),
    BadModel("negative width", config(hidden_size=-32), "hidden_size: given -32"),
    BadModel("width", config(hidden_size=1 << 40), "limit model.width"),
    BadModel("half a width", config(hidden_size=0.5), "hidden_size: given 0.5"),
    BadModel("heads", config(num_attention_heads=0), "num_attention_heads: given 0"),
    BadModel("heads that do not divide", config(num_attention_heads=5), "weight"),
    BadModel("key heads", config(num_key_value_heads=True), "num_key_value_heads: given True"),
    BadModel("activation", config(hidden_act="gelou"), "config is refused"),
    BadModel("rotary", config(rope_parameters={"rope_type": "strange"}), "config is refused"),
    BadModel(
        "other blocks",
        config(num_hidden_layers=9),
        "config is refused: StrictDataclassClassValidationError",
    ),
    BadModel("other width", config(hidden_size=48), "expected"),
    BadModel("code", config(auto_map={"AutoModel": "x.X"}), "auto_map names Python code"),
    BadModel("other weights", config(transformers_weights="b.bin"), "names other files"),
    BadModel("unknown method", config(quantization_config={"quant_method": "none_such"}), "quanti"),
    BadModel("no method", config(quantization_config={}), "quantised weights cannot be trained"),
    BadModel("method of another kind", config(quantization_config=[1]), "quantised weights cannot"),
    BadModel("method of MLX", config(quantization={"bits": 4}), "quantised weights cannot be"),
    BadModel("method within", config(a=[{"quant_method": "x"}]), "quantised weights cannot be"),
    BadModel("compressed", config(compression_config={"format": "x"}), "quantised weights cannot"),
    BadModel("integers", config(dtype="int8"), "dtype: given 'int8': quantised weights cannot"),
    BadModel("few bits", config(torch_dtype="float4"), "torch_dtype: given 'float4'"),
)

TOKENIZERS: tuple[BadModel, ...] = (
    BadModel("words not JSON", written("tokenizer.json", "no"), "tokenizer.json: not readable as"),
    BadModel("words cut off", written("tokenizer.json", '{"model": '), "not readable as JSON"),
    BadModel("words are a list", written("tokenizer.json", "[]"), "expected a JSON object"),
    BadModel("words deep", written("tokenizer.json", "[" * 900_000), "limit json.depth"),
    BadModel("words huge", sparse("tokenizer.json", 1 << 40), "limit tokenizer.bytes"),
    BadModel("no words", written("tokenizer.json", "{}"), "with a vocabulary"),
    BadModel("no model", tokenizer(lambda t: t.pop("model")), "with a vocabulary"),
    BadModel("model of a type", tokenizer(lambda t: t["model"].update(type="X")), "tokenizer"),
    BadModel("vocabulary", tokenizer(lambda t: t["model"].update(vocab=3)), "with a vocabulary"),
    BadModel("text id", tokenizer(lambda t: t["model"]["vocab"].update(a="0")), "given the id '0'"),
    BadModel("negative", tokenizer(lambda t: t["model"]["vocab"].update(a=-1)), "given the id -1"),
    BadModel("half", tokenizer(lambda t: t["model"]["vocab"].update(a=0.5)), "given the id 0.5"),
    BadModel(
        "large id",
        tokenizer(lambda t: t["model"]["vocab"].update(a=10**9)),
        "limit model.vocabulary",
    ),
    BadModel(
        "id beyond the embedding",
        tokenizer(lambda t: t["model"]["vocab"].update(zzz=999)),
        "ids up to 999, expected less than 257",
    ),
    BadModel("added", tokenizer(lambda t: t.update(added_tokens=3)), "added_tokens: expected a"),
    BadModel("added word", tokenizer(lambda t: t.update(added_tokens=[7, 8])), "tokenizer"),
    BadModel("added id", tokenizer(lambda t: t.update(added_tokens=[{"id": -3}])), "given the id"),
    BadModel("merges", tokenizer(lambda t: t["model"].update(merges=[["q"]])), "failed to extract"),
    BadModel("merges of none", tokenizer(lambda t: t["model"].update(merges=["¿ ¿"])), "cannot be"),
    BadModel("splitter", tokenizer(lambda t: t.update(pre_tokenizer={"type": "X"})), "tokenizer"),
    BadModel(
        "pattern",
        tokenizer(
            lambda t: t.update(
                pre_tokenizer={
                    "type": "Split",
                    "pattern": {"Regex": "(((("},
                    "behavior": "Isolated",
                    "invert": False,
                }
            )
        ),
        "tokenizer",
    ),
    BadModel("class", config("tokenizer_config.json", tokenizer_class=[1]), "tokenizer"),
    BadModel("code", config("tokenizer_config.json", auto_map={"AutoTokenizer": "x.X"}), "code"),
)

HEADERS: tuple[BadModel, ...] = (
    BadModel("no bytes", written(WEIGHTS, b""), "0 bytes, expected at least 8"),
    BadModel("words", written(WEIGHTS, b"nothing of the kind"), "the file is damaged"),
    BadModel("length beyond", safetensors({}, length=9_999), "a header of 9,999 bytes"),
    BadModel("length 2^63", safetensors({}, length=1 << 63), "the file is damaged: a header of"),
    BadModel("length 2^64", safetensors({}, length=(1 << 64) - 1), "the file is damaged"),
    BadModel(
        "long header",
        lambda folder: (
            safetensors({}, length=1 << 39)(folder),
            sparse(WEIGHTS, 1 << 40)(folder),
        ),
        "limit safetensors.header",
    ),
    BadModel("header not JSON", safetensors(b"no JSON"), "its header is not JSON"),
    BadModel("header not UTF-8", safetensors(b'{"\xff": 1}'), "its header is not JSON"),
    BadModel("header deep", safetensors(b"[" * 90_000), "its header is not JSON"),
    BadModel("header a list", safetensors(b"[]"), "its header is no JSON object"),
    BadModel(
        "a name twice",
        safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(tensor()).encode(),) * 2), b"\0" * 8),
        "the name 'a' twice",
    ),
    BadModel("entry", safetensors({"a": 3}), "a: expected a dtype, a shape and two data_offsets"),
    BadModel("dtype", safetensors({"a": tensor("F99")}, b"\0" * 8), "a: dtype 'F99', expected"),
    BadModel("dtype a list", safetensors({"a": tensor(["F32"])}, b"\0" * 8), "a: dtype"),
    BadModel("negative", safetensors({"a": tensor(shape=[-2])}, b"\0" * 8), "expected a dtype"),
    BadModel("shape a text", safetensors({"a": tensor(shape="2")}, b"\0" * 8), "expected a dtype"),
    BadModel("half a size", safetensors({"a": tensor(shape=[0.5])}, b"\0" * 8), "expected a dty"),
    BadModel("true", safetensors({"a": tensor(shape=[True])}, b"\0" * 8), "expected a dtype"),
    BadModel("places", safetensors({"a": tensor(places=[0])}, b"\0" * 8), "two data_offsets"),
    BadModel("places back", safetensors({"a": tensor(places=[8, 0])}, b"\0" * 8), "-8 bytes"),
    BadModel("size", safetensors({"a": tensor("F64")}, b"\0" * 8), "8 bytes, expected 16 for F64"),
    BadModel(
        "huge size",
        safetensors({"a": tensor(shape=[1 << 62, 4])}, b"\0" * 8),
        "8 bytes, expected 73,786,976,294,838,206,464",
    ),
    BadModel(
        "overlap",
        safetensors({"a": tensor(), "b": tensor(places=[4, 12])}, b"\0" * 12),
        "b begins at byte 4 of the data, expected 8",
    ),
    BadModel(
        "hole",
        safetensors({"a": tensor(), "b": tensor(places=[12, 20])}, b"\0" * 20),
        "b begins at byte 12 of the data, expected 8",
    ),
    BadModel("late", safetensors({"a": tensor(places=[8, 16])}, b"\0" * 16), "a begins at byte 8"),
    BadModel("beyond", safetensors({"a": tensor()}, b"\0" * 7), "the file is cut off: 7 bytes"),
    BadModel("more", safetensors({"a": tensor()}, b"\0" * 9), "9 bytes of data, expected 8"),
    BadModel("no tensors", safetensors({}), "weights are missing, the first is embed_tokens"),
)

INDEXES: tuple[BadModel, ...] = (
    BadModel("index empty", index({}), "expected a weight_map in it"),
    BadModel("index of none", index({"weight_map": {}}), "expected a weight_map in it"),
    BadModel("index a list", index([]), "index.json: expected a JSON object"),
    BadModel("index of a list", index({"weight_map": ["a"]}), "expected a weight_map in it"),
    BadModel("index of numbers", index({"weight_map": {"a": 3}}), "expected the name of a file"),
    BadModel("index of lists", index({"weight_map": {"a": ["b"]}}), "expected the name of a file"),
    BadModel("index mixed", index({"weight_map": {"a": "b", "c": 3}}), "expected the name of"),
    BadModel("index absent", index({"weight_map": {"a": "b.safetensors"}}), "b.safetensors is"),
    BadModel("index out", index({"weight_map": {"a": "../b"}}), "expected the name of a file in"),
    BadModel("index up", index({"weight_map": {"a": ".."}}), "expected the name of a file in"),
    BadModel("index root", index({"weight_map": {"a": "/etc/passwd"}}), "expected the name of a"),
    BadModel("index zero", index({"weight_map": {"a": "a\0b"}}), "expected the name of a file in"),
    BadModel("index deep", index(json.loads("[" * 101 + "]" * 101)), "limit json.depth"),
    BadModel(
        "index huge",
        lambda folder: (index({})(folder), sparse(INDEX, 1 << 40)(folder)),
        "limit index.bytes",
    ),
    BadModel(
        "index of a FIFO",
        fifo_in_index,
        "b.safetensors",
    ),
)

WEIGHT_CASES: tuple[BadModel, ...] = (
    BadModel("int32", as_dtype(torch.int32), "is stored as I32, expected F32, F16 or BF16"),
    BadModel("int64", as_dtype(torch.int64), "is stored as I64, expected F32, F16 or BF16"),
    BadModel("int8", as_dtype(torch.int8, UP), f"weight {UP} is stored as I8"),
    BadModel("uint8", as_dtype(torch.uint8, "norm"), "is stored as U8, expected"),
    BadModel("bool", as_dtype(torch.bool, "bias"), "is stored as BOOL, expected"),
    BadModel("float8", as_dtype(torch.float8_e4m3fn, UP), "is stored as F8_E4M3, expected"),
    BadModel("missing", weights(lambda w: {k: v for k, v in w.items() if k != UP}), f"is {UP}"),
    BadModel("other shape", weights(lambda w: {**w, UP: w[UP].T.contiguous()}), f"weight {UP} is"),
    BadModel("scalar", weights(lambda w: {**w, UP: torch.ones(())}), f"weight {UP} is (), expect"),
    BadModel("other names", weights(lambda w: {f"x.{k}": v for k, v in w.items()}), "missing"),
    BadModel("pickle empty", pickled(b""), "cannot be read as plain tensors"),
    BadModel("pickle of words", pickled(b"no pickle"), "cannot be read as plain tensors"),
    BadModel("pickle of code", pickled(b"cos\nsystem\n(S'true'\ntR."), "cannot be read as plain"),
    BadModel("pickle of a zip", pickled(b"PK\x05\x06" + b"\0" * 18), "cannot be read as plain"),
    BadModel("pickle of a size", pickled(b"\x80\x02\x8d" + b"\xff" * 8), "cannot be read as plain"),
)

GGUF: tuple[BadModel, ...] = (
    BadModel("empty", cut(0), "this one has no header"),
    BadModel("short", cut(20), "this one has no header"),
    BadModel("cut in its metadata", cut(90), "the GGUF header is damaged or cut off"),
    BadModel("cut in its data", cut(20_000), "the file is cut off"),
    BadModel("other letters", number_at(0, "I", 7), "it does not start as one"),
    BadModel("version", number_at(4, "I", 99), "GGUF version 99, expected 2 or 3"),
    BadModel("tensors", number_at(8, "Q", 1 << 63), "limit gguf.tensors"),
    BadModel("more tensors", number_at(8, "Q", 99), "limit gguf.text"),
    BadModel("fields", number_at(16, "Q", 1 << 63), "limit gguf.fields"),
    BadModel("more fields", number_at(16, "Q", 60_000), "limit gguf.text"),
    BadModel("key", number_at(24, "Q", 1 << 63), "limit gguf.text"),
    BadModel("key beyond", number_at(24, "Q", MEBIBYTE), "the GGUF header is damaged or cut off"),
    BadModel("stretched", stretched, "limit gguf.fields"),
    BadModel("architecture", fields(("general.architecture", texts("x"))), "GGUF architecture x"),
    BadModel("no architecture", fields(), "GGUF architecture None is not supported"),
    BadModel("number", fields(("general.architecture", whole(1))), "GGUF architecture 1 is not"),
    BadModel("alignment 0", fields(("general.alignment", whole(0))), "general.alignment: given 0"),
    BadModel("alignment", fields(("general.alignment", texts("a"))), "general.alignment: given 'a"),
    BadModel("wide", fields(("general.alignment", whole(1 << 31))), "general.alignment: given 2"),
    BadModel("half", fields(("general.alignment", struct.pack("<If", 6, 0.5))), "given 0.5"),
    BadModel("twice", fields(("a", whole(1)), ("a", whole(2))), "'a' twice in its header"),
    BadModel("type", fields(("a", struct.pack("<I", 99))), "the GGUF header is damaged"),
    BadModel("lists of lists", fields(("a", array(9, 2))), "a list of lists in its header"),
    BadModel("long list", fields(("a", array(4, 1 << 63))), "limit gguf.list"),
    BadModel("long texts", fields(("a", array(8, 1 << 63))), "limit gguf.list"),
    BadModel("list beyond", fields(("a", array(4, 99))), "the GGUF header is damaged or cut off"),
    BadModel("texts beyond", fields(("a", array(8, 99))), "the GGUF header is damaged or cut off"),
    BadModel("text beyond", fields(("a", struct.pack("<IQ", 8, 99))), "the GGUF header is damaged"),
    BadModel("latin", fields(("a", struct.pack("<IQ", 8, 1) + b"\xe9")), "the GGUF header is dam"),
    BadModel("parts", fields(("split.count", whole(3))), "one of several GGUF parts"),
    BadModel(
        "dimensions",
        fields(tensors=gguf_text("a") + struct.pack("<I", 1 << 31), count=1),
        "limit gguf.dimensions",
    ),
    BadModel(
        "kind", fields(tensors=gguf_tensor("a", (32,), 99), count=1), "the GGUF header is damaged"
    ),
    BadModel(
        "blocks", fields(tensors=gguf_tensor("a", (33,), 8), count=1), "the GGUF header is damaged"
    ),
    BadModel(
        "offset", fields(tensors=gguf_tensor("a", (32,), 0, 1 << 60), count=1), "the file is cut"
    ),
    BadModel(
        "sizes", fields(tensors=gguf_tensor("a", (1 << 60, 8)), count=1), "the file is cut off"
    ),
    BadModel(
        "overlap",
        fields(tensors=gguf_tensor("a", (32,)) + gguf_tensor("b", (32,), 0, 64), count=2),
        "b overlaps another weight",
    ),
    BadModel(
        "tensor twice",
        fields(tensors=gguf_tensor("a", (0,)) + gguf_tensor("a", (0,)), count=2),
        "'a' twice in its header",
    ),
    BadModel(
        "flat embedding",
        fields(
            ("general.architecture", texts("llama")),
            tensors=gguf_tensor("token_embd.weight", (0,)),
            count=1,
        ),
        "token_embd.weight has 1 dimensions, expected 2",
    ),
    BadModel(
        "blocks as a list",
        fields(
            ("general.architecture", texts("llama")),
            ("llama.block_count", array(4, 1, b"\1\0\0\0")),
            tensors=gguf_tensor("token_embd.weight", (0, 4)),
            count=1,
        ),
        "llama.block_count is a list, expected one number",
    ),
    BadModel(
        "blocks as a text",
        fields(
            ("general.architecture", texts("llama")),
            ("llama.block_count", texts("3")),
            tensors=gguf_tensor("token_embd.weight", (0, 4)),
            count=1,
        ),
        "num_hidden_layers: given '3'",
    ),
    BadModel("no tokenizer", remade(tokenizer=False), "expected tokenizer.ggml"),
    BadModel("weight missing", remade(without=["blk.1.ffn_up.weight"]), "blk.1.ffn_up.weight"),
    BadModel("embedding missing", remade(without=["token_embd.weight"]), "token_embd.weight is"),
    BadModel("FIFO", fifo, "given a FIFO"),
)


def bad_models() -> Iterator[BadModel]:
    """All of them."""
    yield from (*FOLDERS, *CONFIGS, *TOKENIZERS, *HEADERS, *INDEXES, *WEIGHT_CASES)
    yield from (case._replace(is_gguf=True) for case in GGUF)
