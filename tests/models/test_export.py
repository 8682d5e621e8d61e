"""What is exported scores as it did here, read by transformers' own classes and by TRL's."""

import json
import re
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from tests.testing.exports import (
    CLASSES,
    LENGTH,
    LORA,
    card,
    export,
    ours,
    probabilities,
    rows_of_test,
    stock_outputs,
    texts_of,
    trained,
)
from tests.testing.tiny_models import tiny, tiny_spec
from w2s_ray.catalog.architectures import ARCHITECTURES
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.export import (
    check_exportable,
    ending_in_pad,
    export_layout,
    with_bias,
    write_export,
)
from w2s_ray.models.inference import last_states

pytestmark = pytest.mark.long

PAIRS_AND_CLASSES = pytest.mark.parametrize("per_row", [2, 1])
ALL = pytest.mark.parametrize("architecture", ARCHITECTURES)


@ALL
@PAIRS_AND_CLASSES
@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_the_stock_class_gives_the_predictions(
    tmp_path: Path, architecture: str, per_row: int, trainable: str
) -> None:
    backbone = tiny(architecture)
    scorer = trained(backbone, per_row, trainable)
    tokens = encode(rows_of_test(per_row), backbone.tokenizer, LENGTH)
    assert tokens.truncated
    expected = ours(scorer, tokens)
    assert float(expected.std()) > 0.05
    export(tmp_path, backbone, dict(scorer.named_parameters()))
    texts = texts_of(tokens)
    for batch in (64, 1):
        found = probabilities(stock_outputs(tmp_path, texts, batch=batch))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)).__name__ == (
        ARCHITECTURES[architecture].stock_class
    )


@ALL
@PAIRS_AND_CLASSES
@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_in_bf16_it_gives_them_but_for_rounding(
    tmp_path: Path, architecture: str, per_row: int, trainable: str
) -> None:
    """Worst here: 0.007 as bf16, 0.009 as fp32 (the scores that it trained with were bf16's).

    With 6 blocks of SmolLM2 on 80 pairs, as bf16 and as fp32: trained whole 0.004 and 0.005, by
    adapters 0.006 and 0.007, a last layer 0.007 and 0.019. A head kept in fp32 on the bf16 backbone
    gains nothing (0.004, 0.006), nor do adapters merged in fp32 (0.011 as fp32).
    """
    backbone = tiny(architecture, "bf16")
    scorer = trained(backbone, per_row, trainable)
    tokens = encode(rows_of_test(per_row), backbone.tokenizer, LENGTH)
    expected = ours(scorer, tokens)
    export(tmp_path, backbone, dict(scorer.named_parameters()), "bf16")
    for dtype in ("auto", torch.float32):
        found = probabilities(stock_outputs(tmp_path, texts_of(tokens), dtype))
        assert float((found - expected).abs().max()) < 0.02
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    exact = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(exact.score.weight, scorer.head.weight)


def biased(backbone: Backbone, per_row: int, from_zero: bool) -> dict[str, Tensor]:
    """A last layer as ``training.heads`` leaves it; ``from_zero``: its rows add up to 0."""
    generator = torch.Generator().manual_seed(3)
    outputs = 1 if per_row == 2 else CLASSES
    head = {"head.weight": 0.3 * torch.randn(outputs, 32, generator=generator)}
    if per_row == 1:
        head["head.bias"] = torch.tensor([3.0, -1.0, 0.5])
        if from_zero:
            head = {name: (t.double() - t.double().mean(0)).float() for name, t in head.items()}
    frozen = {f"backbone.{name}": p for name, p in backbone.module.named_parameters()}
    return {**frozen, **head}


@pytest.mark.parametrize("from_zero", [True, False])
@pytest.mark.parametrize(
    ("architecture", "per_row"),
    [("gpt2", 1), ("gpt_neox", 1), *((architecture, 2) for architecture in ARCHITECTURES)],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_last_layer_keeps_its_bias(
    tmp_path: Path, architecture: str, per_row: int, from_zero: bool, precision: str
) -> None:
    backbone = tiny(architecture, precision)
    parameters = biased(backbone, per_row, from_zero)
    tokens = encode(rows_of_test(per_row), backbone.tokenizer, LENGTH)
    states = torch.from_numpy(last_states(backbone, tokens)).double().flatten(0, 1)
    outputs = states @ parameters["head.weight"].double().T
    if per_row == 1:
        outputs += parameters["head.bias"].double()
    export(tmp_path, backbone, parameters, precision)
    found = probabilities(stock_outputs(tmp_path, texts_of(tokens)))
    atol = 1e-5 if precision == "fp32" else 0.05
    torch.testing.assert_close(found, probabilities(outputs), atol=atol, rtol=0)


def test_a_bias_that_the_stock_class_cannot_hold_is_refused() -> None:
    for architecture in ("llama", "qwen2"):
        backbone = tiny(architecture)
        with pytest.raises(InputError, match=f"{architecture} cannot be exported") as caught:
            check_exportable(backbone.module.config, "last_layer", 1)
        assert caught.value.place == ("execution", "export_models")
        shapes = {n: tuple(p.shape) for n, p in biased(backbone, 1, True).items()}
        with pytest.raises(InputError, match="cannot be exported"):
            export_layout(shapes, backbone.module, "fp32")
        check_exportable(backbone.module.config, "last_layer", 2)
        check_exportable(backbone.module.config, "full", 1)
    for architecture in ("gpt2", "gpt_neox"):
        check_exportable(tiny(architecture).module.config, "last_layer", 1)
        assert architecture in str(caught.value)


def test_a_bias_outside_the_span_of_the_weights_is_refused() -> None:
    weight = torch.ones(3, 8)
    with pytest.raises(ValueError, match="outside the span"):
        with_bias(torch.zeros(8), weight, torch.tensor([0.0, 1.0, 2.0]))
    assert not with_bias(torch.zeros(8), weight, torch.full((3,), 4.0)).any()  # common to all


@ALL
def test_shards_hold_the_same_weights(tmp_path: Path, architecture: str) -> None:
    backbone = tiny(architecture)
    parameters = dict(trained(backbone, 2, "full").named_parameters())
    whole = export(tmp_path / "whole", backbone, parameters)
    shards = export(tmp_path / "shards", backbone, parameters, shard_bytes=20_000)
    names = sorted(path.name for path in shards.glob("*.safetensors"))
    assert len(names) > 3
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    one, many = (
        AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
        for folder in (whole, shards)
    )
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_other_parameters_than_the_layouts_are_refused(tmp_path: Path) -> None:
    backbone = tiny("llama")
    parameters = dict(trained(backbone, 2, "lora").named_parameters())
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    layout = export_layout(shapes, backbone.module, "fp32", LORA)
    assert sorted(layout.sources) == sorted(parameters)
    rest: dict[str, Any] = {
        "config": backbone.module.config,
        "tokenizer": backbone.tokenizer,
        "card": card(),
    }
    coming = [(name, parameters[name].detach()) for name in layout.sources]
    for wrong in (coming[:-1], coming[1:], [*coming, coming[-1]]):
        with pytest.raises(ValueError, match="export:"):
            write_export(tmp_path, layout, wrong, **rest)
    iterator = iter([(name, torch.empty(0)) for name, _ in coming])
    write_export(None, layout, iterator, **rest)  # a rank that writes nothing
    assert next(iterator, None) is None


def test_only_one_tensor_and_its_sources_are_in_memory(tmp_path: Path) -> None:
    """A layer of GPT-2 has its weight and two factors; then all three must be gone."""
    backbone = tiny("gpt2")
    parameters = dict(trained(backbone, 2, "lora").named_parameters())
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    layout = export_layout(shapes, backbone.module, "fp32", LORA)
    held: list[weakref.ref[Tensor]] = []
    most = 0

    def coming() -> Iterator[tuple[str, Tensor]]:
        nonlocal most
        for name in layout.sources:
            most = max(most, sum(tensor() is not None for tensor in held))
            tensor = parameters[name].detach().clone()
            held.append(weakref.ref(tensor))
            yield name, tensor
            del tensor

    config, tokenizer = backbone.module.config, backbone.tokenizer
    write_export(tmp_path, layout, coming(), config=config, tokenizer=tokenizer, card=card())
    assert most == 2  # when the third is asked for


@ALL
def test_the_configuration_has_no_settings_of_this_project(
    tmp_path: Path, architecture: str
) -> None:
    backbone = tiny(architecture)
    before = backbone.module.config.to_dict()
    backbone.module.config._name_or_path = "/home/somebody/model"
    for per_row in (2, 1):
        folder = tmp_path / str(per_row)
        export(folder, backbone, dict(trained(backbone, per_row, "full").named_parameters()))
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == [ARCHITECTURES[architecture].stock_class]
        assert config["pad_token_id"] == backbone.tokenizer.pad_token_id == 256
        assert config["dtype"] == "float32"
        assert config["use_cache"]
        assert len(config["id2label"]) == (1 if per_row == 2 else CLASSES)
        for file in folder.glob("*.json"):
            assert not re.search("w2s|/home|_attn_implementation", file.read_text())
    assert backbone.module.config._attn_implementation == "w2s_packed"
    after = backbone.module.config.to_dict()
    assert {**after, "_name_or_path": ""} == {**before, "_name_or_path": ""}


def test_the_names_of_the_classes_are_in_configuration_and_card(tmp_path: Path) -> None:
    backbone = tiny("gpt2")
    parameters = dict(trained(backbone, 1, "full").named_parameters())
    names = ("calm", "calm ", "loud")[:CLASSES]
    export(tmp_path, backbone, parameters, card=card(1, classes=names))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.id2label == dict(enumerate(names))
    assert model.config.label2id == {name: index for index, name in enumerate(names)}
    assert (
        "one per class. The classes in order: `calm`, `calm `, `loud`."
        in (tmp_path / "README.md").read_text()
    )


def test_no_name_of_code_travels_on(tmp_path: Path) -> None:
    """Who loads the export would be asked whether to run it."""
    backbone = tiny("llama")
    backbone.module.config.auto_map = {"AutoModel": "x.X"}
    backbone.module.config.custom_pipelines = {"text-classification": {"impl": "x.X"}}
    backbone.tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": ["x.X", None]}
    export(tmp_path, backbone, dict(trained(backbone, 2, "full").named_parameters()))
    for file in tmp_path.glob("*.json"):
        assert "x.X" not in file.read_text() and "auto_map" not in file.read_text()
    assert backbone.module.config.auto_map and "auto_map" in backbone.tokenizer.init_kwargs


@ALL
@PAIRS_AND_CLASSES
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_code_of_the_card_scores_a_row(
    tmp_path: Path, architecture: str, per_row: int, precision: str
) -> None:
    backbone = tiny(architecture, precision)
    scorer = trained(backbone, per_row, "full")
    export(tmp_path, backbone, dict(scorer.named_parameters()), precision)
    found: dict[str, Any] = {}
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    exec(code.replace('folder = "."', f"folder = {str(tmp_path)!r}"), found)
    rows = rows_of_test(per_row)
    expected = ours(scorer, encode(rows, backbone.tokenizer, LENGTH))
    atol = 1e-5 if precision == "fp32" else 0.02
    if per_row == 2:
        assert 0 < found["p_a_is_preferred"] < 1
        for row, p in zip(rows.to_pylist(), expected[:, 1].tolist(), strict=True):
            a, b = found["rewards"](row["prompt"], row["answers"])
            assert torch.sigmoid(a - b).item() == pytest.approx(p, abs=atol)
    else:
        whole = [row["prompt"] + row["answers"][0] for row in rows.to_pylist()]
        assert found["probabilities"](whole).shape == (12, CLASSES)
        torch.testing.assert_close(
            found["probabilities"](whole).double(), expected, atol=atol, rtol=0
        )


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    backbone = tiny("gpt2", "bf16")
    parameters = dict(trained(backbone, 2, "full").named_parameters())
    spec = tiny_spec("gpt2").model_copy(update={"source": "hf:org/base", "num_layers": 3})
    logits = np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 2.0], [0.0, 3.0]], np.float32)
    accurate = card(2, "bf16", model=spec).scored(logits, np.array([1, 1, 1, 1]))
    export(tmp_path, backbone, parameters, "bf16", card=accurate)
    text = (tmp_path / "README.md").read_text()
    for said in (
        'base_model: "org/base"', "library_name: transformers", "- reward-model", "hh-key",
        "a H(w, s) + b H(s, w), a = 1, b = 0.1", "0.25 of the labels", "| seed | 7 |",
        "| test accuracy | 0.75 |", "bfloat16", f"at most {LENGTH} tokens", "σ(r(A) − r(B))",
        "`hf:org/base`, its first 3 blocks",
    ):  # fmt: skip
        assert said in text
    assert "| labels |" not in text
    local = card(1, model=spec.model_copy(update={"source": "/home/somebody/mine"}), role="weak")
    treated = {
        "label_temperature": 0.5, "label_filter": {"keep": 0.7, "by": "probe"},
        "relabel": "knn", "example_weight": "confidence", "held_out": 0.1,
    }  # fmt: skip
    local = replace(local, config={**local.config, **treated})
    export(tmp_path, backbone, dict(trained(backbone, 1, "full").named_parameters()), card=local)
    text = (tmp_path / "README.md").read_text()
    assert "`mine`, a local model" in text
    assert (
        "| labels | temperature 0.5; replaced by knn; the share 0.7 with the best by probe; "
        "weighed by confidence; all but the share 0.1, which calibrates the model |"
    ) in text
    assert "/home" not in text
    assert "bfloat16" not in text


def test_a_text_that_ends_in_the_pad_token_is_counted(tmp_path: Path) -> None:
    """The stock class reads the token before it; the byte tokenizer never makes such a text."""
    backbone = tiny("gpt2")
    pad = 256
    tokens = Tokens(
        ["a", "b", "c"],
        np.array([1, 2, pad, 3, 4, 5, pad, pad, 6, pad], np.int32),
        np.array([[1, 1, 1], [3, 1, 0], [1, 1, 1]]),
        truncated=0,
    )
    assert texts_of(tokens) == [[1, 2], [1, pad], [3, 4, 5, pad], [3, 4, 5], [pad, 6], [pad, pad]]
    assert ending_in_pad(tokens, pad) == 3
    made = encode(rows_of_test(2), backbone.tokenizer, LENGTH)
    assert ending_in_pad(made, pad) == 0
    scorer = trained(backbone, 2, "full")
    export(tmp_path, backbone, dict(scorer.named_parameters()))
    outputs = stock_outputs(tmp_path, [[1, pad], [1]], batch=1)
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-6, rtol=0)


@ALL
def test_the_tokenizer_comes_back(tmp_path: Path, architecture: str) -> None:
    """Its loader stands in the card: beside a qwen2 model AutoTokenizer makes another of it."""
    backbone = tiny(architecture)
    export(tmp_path, backbone, dict(trained(backbone, 2, "full").named_parameters()))
    automatic = architecture != "qwen2"
    name = "AutoTokenizer" if automatic else "PreTrainedTokenizerFast"
    text = (tmp_path / "README.md").read_text()
    assert f"import AutoModelForSequenceClassification, {name}\n" in text
    kind: Any = AutoTokenizer if automatic else PreTrainedTokenizerFast
    found = kind.from_pretrained(tmp_path)
    assert found.pad_token_id == backbone.tokenizer.pad_token_id
    assert found.padding_side == "right"
    text = "A\u030a <pad>\n\n x"
    options = {"add_special_tokens": False}
    assert found(text, **options)["input_ids"] == backbone.tokenizer(text, **options)["input_ids"]
