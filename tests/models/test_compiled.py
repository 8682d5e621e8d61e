"""Compiled blocks give the numbers of eager ones; short work and other devices stay eager."""

import pytest
import torch

from tests.testing.tiny_models import tiny
from w2s_ray.models import compiled
from w2s_ray.models.compiled import compile_if_it_pays
from w2s_ray.models.scorer import readout

SEGMENTS = torch.tensor([[5, 3, 4], [0, 6, 1], [1, 9, 12]])
IDS = torch.arange(int(SEGMENTS.sum())) % 257


@pytest.mark.long
def test_compiled_is_eager_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny("llama")
    module = backbone.module
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))

    def numbers():
        module.zero_grad()
        states = readout(module, IDS, SEGMENTS)
        (states * weight).sum().backward()
        return states.detach(), [p.grad.clone() for p in module.parameters()]

    states, gradients = numbers()
    monkeypatch.setattr(compiled, "PAYS_FROM_FLOPS", 0)
    assert compile_if_it_pays(backbone, 1, 6)
    fast, fast_gradients = numbers()
    torch.testing.assert_close(fast, states, atol=1e-5, rtol=0)
    for a, b in zip(fast_gradients, gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=0)


def test_the_work_decides_and_a_compiler_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny("gpt_neox")
    blocks = sum(p.numel() for p in backbone.module.layers.parameters())
    enough = int(compiled.PAYS_FROM_FLOPS / (6 * blocks)) + 1
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: None)
    assert not compile_if_it_pays(backbone, enough - 2, 6)
    assert not compile_if_it_pays(backbone, enough, 2)
    assert compile_if_it_pays(backbone, enough, 6)
    monkeypatch.setenv("PATH", "")
    assert not compile_if_it_pays(backbone, enough, 6)


def test_adapters_are_compiled_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compiles: list[torch.nn.Module] = []
    monkeypatch.setattr(compiled, "PAYS_FROM_FLOPS", 0)
    monkeypatch.setattr(compiled, "compile_blocks", compiles.append)
    backbone = tiny("llama")
    backbone.module.requires_grad_(False)
    assert compile_if_it_pays(backbone, 1, 6)
    compiles.clear()
    backbone.module.to("meta")  # any other device
    assert not compile_if_it_pays(backbone, 1, 6)
    assert not compiles


def test_what_does_not_compile_stays_eager_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny("gpt2")
    expected = readout(backbone.module, IDS, SEGMENTS)

    def broken(*arguments, **options):
        raise OSError("the cache cannot be written")

    monkeypatch.setattr(compiled, "PAYS_FROM_FLOPS", 0)
    for block in backbone.module.h:
        monkeypatch.setattr(block, "_call_impl", broken)  # what torch.compile would run
    with pytest.warns(UserWarning, match="not compiled: .*cannot be written"):
        assert not compile_if_it_pays(backbone, 1, 6)
    monkeypatch.undo()
    assert torch.equal(readout(backbone.module, IDS, SEGMENTS), expected)
