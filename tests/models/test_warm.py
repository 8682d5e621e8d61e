"""A cached backbone is loaded once and never changes, whatever steps do to their copies."""

import pytest
import torch

from tests.testing.tiny_models import tiny_spec
from w2s_ray.models import warm
from w2s_ray.models.backbone import load_backbone


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_cached", type(warm._cached)())


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


def test_another_precision_or_field_is_another_backbone(loads: list[str]) -> None:
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


def test_training_a_copy_does_not_change_the_cached_backbone() -> None:
    model = tiny_spec("qwen2")
    copy = warm.own_backbone(model, "fp32")
    with torch.no_grad():
        for parameter in copy.module.parameters():
            parameter.zero_()
    fresh = load_backbone(model, "fp32")
    (cached,) = warm._cached.values()
    again = warm.own_backbone(model, "fp32")
    assert len({id(backbone.module) for backbone in (copy, cached, again)}) == 3
    for backbone in (cached, again):
        expected = fresh.module.state_dict()
        assert all(torch.equal(t, expected[n]) for n, t in backbone.module.state_dict().items())
    assert all(p.requires_grad for p in again.module.parameters())


def test_a_large_model_is_not_cached(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "LARGEST_WARM_BYTES", 1000)
    first, second = (warm.own_backbone(tiny_spec("gpt2"), "fp32") for _ in range(2))
    assert loads == ["gpt2", "gpt2"]
    assert first.module is not second.module
