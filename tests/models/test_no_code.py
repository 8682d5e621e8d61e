"""No code of a model runs, whatever its files name and whoever says yes.

Each module here leaves a file when it is imported. A control shows that transformers, which asks on
a terminal by default, does import it after a "y".
"""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.testing.gguf_file import write_gguf
from tests.testing.tiny_models import tiny

MODULE = """
from pathlib import Path
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

(Path({folder!r}) / "{name}.ran").touch()

class X{kind}({base}):
    model_type = "x"
"""
CASES = """
import json, sys
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.preflight import check_models
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.spec.schema import ModelSpec

def refusal(call):
    try:
        call()
    except InputError as error:
        return str(error)
    return "loaded"

def random(tokenizer):
    spec = {"init": "random", "architecture": "llama", "tokenizer": tokenizer}
    return ModelSpec.model_validate({**spec, "config": {"vocab_size": 300}})

said = {}
for name, (kind, path) in json.loads(sys.argv[1]).items():
    model = random(path) if kind == "tokenizer" else ModelSpec(source=path)
    said[name] = [
        refusal(lambda: check_models({"m": model}, None)),
        refusal(lambda: load_tokenizer(model)),
        refusal(lambda: load_backbone(model, "fp32", "cpu")),
    ]
print(json.dumps(said))
"""
CONTROL = """
import sys
from transformers import AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
"""


class Payload:
    """What a pickle may hold: a call."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.file,))


def answered(code: str, argument: str, where: str, home: Path) -> str:
    """The output of ``code``, to which somebody answers "y" on a terminal or through a pipe."""
    environment = {**os.environ, "HF_HOME": str(home), "W2S_CACHE": str(home / "w2s")}
    command = [sys.executable, "-c", code, argument]
    if where == "pipe":
        run = subprocess.run(
            command, input="y\n" * 50, env=environment, capture_output=True, text=True, check=True
        )
        return run.stdout
    master, slave = pty.openpty()
    try:
        os.write(master, b"y\n" * 50)
        run = subprocess.run(
            command, stdin=slave, env=environment, capture_output=True, text=True, check=True
        )
    finally:
        os.close(master)
        os.close(slave)
    return run.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    "where", [pytest.param("pipe", marks=pytest.mark.slow), "terminal"]
)  # where transformers asks
def test_code_is_refused_in_one_line_and_never_run(where: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    plain = tmp_path / "plain"
    backbone = tiny("llama")
    backbone.module.save_pretrained(plain)
    backbone.tokenizer.save_pretrained(plain)

    def folder(name: str, **fields: dict[str, object]) -> Path:
        path = Path(shutil.copytree(plain, tmp_path / name))
        for file, values in fields.items():
            config = json.loads((path / f"{file}.json").read_text())
            (path / f"{file}.json").write_text(json.dumps({**config, **values}))
        for kind, base in {
            "Tokenizer": "PreTrainedTokenizerFast",
            "Config": "PreTrainedConfig",
        }.items():
            text = MODULE.format(folder=str(ran), name=name, kind=kind, base=base)
            (path / f"{kind.lower()}_x.py").write_text(text)
        return path

    tokenizer = {"AutoTokenizer": [None, "tokenizer_x.XTokenizer"]}
    config = {"AutoConfig": "config_x.XConfig", "AutoModel": "config_x.XConfig"}
    unknown = {"tokenizer_class": "XTokenizer", "auto_map": tokenizer}
    cases = {
        "tokenizer": ("tokenizer", folder("tokenizer", tokenizer_config=unknown)),
        "its_config": (
            "tokenizer",
            folder("its_config", config={"model_type": "x", "auto_map": config}),
        ),
        "model": ("model", folder("model", config={"auto_map": config})),
        "new_model": ("model", folder("new_model", config={"model_type": "x", "auto_map": config})),
        "model_tokenizer": ("model", folder("model_tokenizer", tokenizer_config=unknown)),
        "gguf": ("model", folder("gguf", tokenizer_config=unknown, config={"auto_map": config})),
        "pickle": ("model", folder("pickle")),
    }
    write_gguf(cases["gguf"][1] / "m.gguf")
    cases["gguf"] = ("model", cases["gguf"][1] / "m.gguf")
    (cases["pickle"][1] / "model.safetensors").unlink()
    torch.save({"x": Payload(ran / "pickle.ran")}, cases["pickle"][1] / "pytorch_model.bin")
    argument = json.dumps({name: (kind, str(path)) for name, (kind, path) in cases.items()})
    said = json.loads(answered(CASES, argument, where, tmp_path / "home"))
    assert list(ran.iterdir()) == []
    assert said.pop("gguf") == ["loaded"] * 3
    first, tokens, last = said.pop("pickle")
    assert "pytorch_model.bin: cannot be read as plain tensors" in first
    assert tokens == "loaded" and "not readable" in last
    for name, messages in said.items():
        for message in messages:
            assert "auto_map names Python code" in message and "\n" not in message, name
            assert str(cases[name][1]) in message
    answered(CONTROL, str(cases["tokenizer"][1]), where, tmp_path / "home")
    assert [file.name for file in ran.iterdir()] == ["tokenizer.ran"]
