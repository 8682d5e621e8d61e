"""Every architecture gives what transformers' eager attention gives for each text alone."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.testing.exports import (
    LENGTH,
    LORA,
    export,
    ours,
    probabilities,
    rows_of_test,
    stock_outputs,
    texts_of,
    trained,
)
from tests.testing.families import FAMILIES, SEPARATE, save_family, table_row
from tests.testing.shares import alternating
from w2s_ray.capacity.memory import activation_bytes, adapter_parameters
from w2s_ray.catalog import measured
from w2s_ray.catalog.shapes import Shape, shape, shape_from
from w2s_ray.data.tokens import encode
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.models.dimensions import dimensions as measure
from w2s_ray.models.export import check_exportable
from w2s_ray.models.inference import last_states
from w2s_ray.models.packed_attention import separate
from w2s_ray.models.preflight import model_config
from w2s_ray.models.scorer import Scorer, readout
from w2s_ray.models.structure import blocks_path, stock_of
from w2s_ray.models.trainable import set_trainable
from w2s_ray.spec.schema import ModelSpec

every_family = pytest.mark.parametrize("name", FAMILIES)
NO_CLASS = {"Granite"}  # transformers cannot read scores of these

SEGMENTS = torch.tensor([[3, 2, 4], [0, 1, 5], [9, 11, 7], [4, 0, 2]])
IDS = torch.arange(int(SEGMENTS.sum())) * 7919 % 251


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model specs by family; each folder is written once."""
    folder = tmp_path_factory.mktemp("families")
    specs: dict[str, ModelSpec] = {}

    def of(name: str) -> ModelSpec:
        if name not in specs:
            specs[name] = save_family(name, folder / name)
        return specs[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_CACHE", str(folder / "cache"))
        # what a plan needs is measured where the model is loaded; one test runs the program
        patch.setattr(measured, "PROGRAM", "none")
        yield of


def dimensions(spec: ModelSpec) -> Shape:
    found = shape(spec)
    assert found is not None
    return found


def eager(backbone: Backbone, ids: Tensor = IDS, segments: Tensor = SEGMENTS) -> Tensor:
    """States of every text alone, by transformers' eager attention.

    Falcon's adds alibi twice (5.23), to scores and in the mask; its SDPA adds it once.
    """
    config: Any = backbone.module.config
    reference = "sdpa" if getattr(config, "alibi", False) else "eager"
    used, config._attn_implementation = config._attn_implementation, reference
    try:
        return separate(backbone.module, ids, segments)
    finally:
        config._attn_implementation = used


@every_family
def test_states_and_gradients_are_those_of_eager_attention(saved: Any, name: str) -> None:
    backbone = load_backbone(saved(name), "fp32", "cpu")
    assert backbone.shares_prompts == (name not in SEPARATE)
    assert backbone.module.training  # and yet nothing is drawn at random
    found, expected = readout(backbone.module, IDS, SEGMENTS), eager(backbone)
    assert found.shape[1] == backbone.hidden_size
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=0)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    parameters = list(backbone.module.parameters())
    ours, theirs = (
        torch.autograd.grad((s * direction).sum(), parameters) for s in (found, expected)
    )
    scale = max(float(gradient.abs().max()) for gradient in theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * scale, rtol=0)


@every_family
def test_plans_count_its_parameters(saved: Any, name: str) -> None:
    for layers in (None, 1):
        spec = saved(name).model_copy(update={"num_layers": layers})
        backbone = load_backbone(spec, "fp32", "cpu")
        planned = dimensions(spec)
        parameters = list(backbone.module.parameters())
        assert planned.parameters == sum(p.numel() for p in parameters)
        assert planned.vectors == sum(p.numel() for p in parameters if p.ndim < 2)
        assert planned.layers == backbone.layers == (layers or 2)
        assert planned.hidden_size == backbone.hidden_size
        scorer = Scorer(backbone.module, backbone.hidden_size, 2, 2)
        adapters = sum(p.numel() for p in set_trainable(scorer, "lora", LORA, 0))
        head = scorer.head.weight.numel()
        assert adapter_parameters(planned, LORA.rank) == adapters - head


@every_family
def test_the_first_blocks_are_those_of_the_whole_model(saved: Any, name: str) -> None:
    spec = saved(name)
    cut = load_backbone(spec.model_copy(update={"num_layers": 1}), "fp32", "cpu")
    whole = load_backbone(spec, "fp32", "cpu")
    blocks: Any = whole.module.get_submodule(blocks_path(whole.module))
    del blocks[1:]
    whole.module.config.num_hidden_layers = 1
    assert cut.shares_prompts == (name not in SEPARATE)
    found = readout(cut.module, IDS, SEGMENTS)
    expected = eager(whole)
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize(("name", "trainable"), alternating(FAMILIES, ["full", "lora"]))
def test_exports_give_the_same_scores(
    saved: Any, name: str, trainable: str, tmp_path: Path
) -> None:
    backbone = load_backbone(saved(name), "fp32", "cpu")
    scorer = trained(backbone, 2, trainable)
    if name in NO_CLASS:
        with pytest.raises(InputError, match="transformers has no class for its scores"):
            export(tmp_path, backbone, dict(scorer.named_parameters()))
        return
    tokens = encode(rows_of_test(2), backbone.tokenizer, LENGTH)
    expected = ours(scorer, tokens)
    assert float(expected.std()) > 0.01
    export(tmp_path, backbone, dict(scorer.named_parameters()))
    found = probabilities(stock_outputs(tmp_path, texts_of(tokens)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@every_family
def test_the_check_before_a_run_lets_pass_what_can_be_exported(saved: Any, name: str) -> None:
    """It sees the configuration alone, in which no attention has been chosen for the model."""
    config = model_config(saved(name))
    if name in NO_CLASS:
        with pytest.raises(InputError, match="transformers has no class for its scores"):
            check_exportable(config, "full", 2)
        return
    check_exportable(config, "full", 2)


@pytest.mark.parametrize(("name", "per_row"), alternating(FAMILIES, [1, 2]))
def test_last_layers_are_exported_with_their_bias(
    saved: Any, name: str, per_row: int, tmp_path: Path
) -> None:
    """A head on stored features; a bias of classes moves into the final norm's bias."""
    backbone = load_backbone(saved(name), "fp32", "cpu")
    tokens = encode(rows_of_test(per_row), backbone.tokenizer, LENGTH)
    features = torch.from_numpy(last_states(backbone, tokens)).flatten(0, 1)
    draw = torch.Generator().manual_seed(0)
    outputs = 1 if per_row == 2 else 3
    weight = 0.1 * torch.randn(outputs, backbone.hidden_size, generator=draw)
    parameters = {f"backbone.{n}": p for n, p in backbone.module.named_parameters()}
    parameters["head.weight"] = weight
    scores = features @ weight.T
    if per_row == 1:
        parameters["head.bias"] = weight @ torch.randn(backbone.hidden_size, generator=draw)
        scores += parameters["head.bias"]
    if name in NO_CLASS or (per_row == 1 and stock_of(backbone.module.config).final_bias is None):
        with pytest.raises(InputError, match="cannot be exported"):
            export(tmp_path, backbone, parameters)
        return
    export(tmp_path, backbone, parameters)
    found = probabilities(stock_outputs(tmp_path, texts_of(tokens)))
    torch.testing.assert_close(found, probabilities(scores.double()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - SEPARATE))
def test_plans_predict_what_autograd_keeps(saved: Any, name: str) -> None:
    spec = saved(name)
    backbone = load_backbone(spec, "fp32", "cpu")
    weights = {p.untyped_storage().data_ptr() for p in backbone.module.parameters()}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    segments = torch.full((4, 3), 16)
    tokens = int(segments.sum())
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        readout(backbone.module, torch.arange(tokens) % 251, segments)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    planned = activation_bytes(
        dimensions(spec), precision="fp32", tokens=tokens, row_tokens=48, device="cpu"
    )
    # Kernels of experts have shapes in bf16 alone, which are doubled.
    assert planned.kept == pytest.approx(kept, rel=0.2 if "MoE" in name else 0.15)


def test_the_table_of_the_docs_is_current() -> None:
    page = Path("docs/architectures.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`" in line]
    assert rows == [table_row(name) for name in FAMILIES]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["GPT-2", "GPT-NeoX, Pythia", "Llama", "Qwen2, Qwen2.5"])
def test_formulas_give_what_is_measured(saved: Any, name: str, device: Any, precision: str) -> None:
    spec = saved(name)
    fields = json.loads((Path(str(spec.source)) / "config.json").read_text())
    by_formula, by_measurement = dimensions(spec), shape_from(measure(fields, None))
    assert by_formula.measured is None
    numbers = (*(f.name for f in dataclasses.fields(Shape)), "embeddings", "block", "matrices")
    for number in {*numbers, "linear_widths"} - {"measured"}:
        assert getattr(by_formula, number) == getattr(by_measurement, number), number
    how: Any = {"precision": precision, "tokens": 100, "row_tokens": 50, "device": device}
    formula, measurement = (activation_bytes(s, **how) for s in (by_formula, by_measurement))
    # On the meta device a LayerNorm's mean and deviation are float32 in bf16 too.
    assert measurement == pytest.approx(formula, rel=0.01)


def test_the_program_measures_what_a_loaded_model_does(
    saved: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = saved("Qwen3")
    load_backbone(spec, "fp32", "cpu")
    known = dimensions(spec)
    monkeypatch.setenv("W2S_CACHE", str(tmp_path))
    monkeypatch.setattr(measured, "PROGRAM", "w2s_ray.models.dimensions")
    assert dimensions(spec) == known
    assert len(list((tmp_path / "dimensions").iterdir())) == 1
    monkeypatch.setattr(measured, "PROGRAM", "none")
    measured._answer.cache_clear()
    assert dimensions(spec) == known  # from the cache


def test_longrope_ends_where_a_longer_neighbour_would_change_a_row() -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rotary = {"rope_type": "longrope", "original_max_position_embeddings": 64, **factors}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
    fields = {"model_type": "phi3", "vocab_size": 64, "intermediate_size": 48, **sizes}
    limits = {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
    fields |= {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, **limits}
    assert measure({**fields, "rope_parameters": rotary}, None)["max_positions"] == 64
    assert measure(fields, None)["max_positions"] == 256


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("t5", "it has an encoder"),
        ("bert", "its tokens attend to later ones"),
        ("gemma3", "it does not read text alone"),
        ("vit", "it is not a causal language model"),
        ("nonesuch", "architecture nonesuch is not one of transformers"),
    ],
)
def test_other_models_are_refused_by_a_plan(kind: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        measure({"model_type": kind}, None)
    assert "\n" not in str(caught.value)
