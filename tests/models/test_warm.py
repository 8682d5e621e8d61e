"""A kept backbone is loaded once and stays as it was, whatever its borrowers do to their copies."""

import pytest
import torch

from tests.testing.tiny_models import tiny_spec
from w2s_ray.models import warm
from w2s_ray.models.backbone import load_backbone


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_kept", type(warm._kept)())


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The architectures that were loaded, in order."""
    seen: list[str] = []

    def load(model, precision):
        seen.append(model.architecture)
        return load_backbone(model, precision)

    monkeypatch.setattr(warm, "load_backbone", load)
    return seen


def test_the_last_two_models_are_loaded_once(loads: list[str]) -> None:
    for name in ("llama", "gpt2", "llama", "gpt2", "qwen2", "gpt2", "llama"):
        warm.own_backbone(tiny_spec(name), "fp32")
    assert loads == ["llama", "gpt2", "qwen2", "llama"]


def test_precision_and_every_field_of_a_model_tell_it_apart(loads: list[str]) -> None:
    for model, precision in (
        (tiny_spec("llama"), "fp32"),
        (tiny_spec("llama"), "bf16"),
        (tiny_spec("llama", num_layers=1), "fp32"),
    ):
        backbone = warm.own_backbone(model, precision)
        assert backbone.layers == (model.num_layers or 3)
        assert next(backbone.module.parameters()).dtype == (
            torch.float32 if precision == "fp32" else torch.bfloat16
        )
    assert len(loads) == 3


def test_training_a_copy_leaves_the_kept_one_alone() -> None:
    model = tiny_spec("qwen2")
    copy = warm.own_backbone(model, "fp32")
    with torch.no_grad():
        for parameter in copy.module.parameters():
            parameter.zero_()
    fresh = load_backbone(model, "fp32")
    (kept,) = warm._kept.values()
    again = warm.own_backbone(model, "fp32")
    assert len({id(backbone.module) for backbone in (copy, kept, again)}) == 3
    for backbone in (kept, again):
        expected = fresh.module.state_dict()
        assert all(torch.equal(t, expected[n]) for n, t in backbone.module.state_dict().items())
    assert all(p.requires_grad for p in again.module.parameters())


def test_a_large_model_is_not_kept(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "LARGEST_BYTES", 1000)
    first, second = (warm.own_backbone(tiny_spec("gpt2"), "fp32") for _ in range(2))
    assert loads == ["gpt2", "gpt2"]
    assert first.module is not second.module
