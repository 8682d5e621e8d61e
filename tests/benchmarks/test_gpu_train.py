"""The script of GPU machines: on a CPU, with torch and transformers alone, and what it counts."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config

from benchmarks.gpu_checks import CHECKED
from benchmarks.gpu_memory import compiled_bytes
from benchmarks.gpu_model import (
    TINY,
    Variant,
    build,
    line,
    model_flops,
    multiplied,
    optimizer_batch,
    set_up,
    variant,
)
from benchmarks.sides import REPOSITORY
from w2s_ray.capacity.memory import activation_bytes
from w2s_ray.catalog.shapes import shape_of
from w2s_ray.models import packed_attention, packed_layout

REFUSED = ("pydantic", "pyarrow", "ray", "deepspeed", "peft", "datasets")


@pytest.mark.groups
@pytest.mark.slow
def test_deepspeed_on_one_device_trains_and_resumes_as_plain_torch_does():
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_zero.py", "--tiny"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    exact, rounded = json.loads(done.stdout.splitlines()[-1])["cases"]
    assert exact["case"].startswith("float32") and rounded["case"].startswith("bfloat16")
    assert max(rounded["resumed"].values()) == 0.0


_TWO = ("--processes", "2")


@pytest.mark.slow
def test_small_steps_of_two_processes_at_once():
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_small.py", "--tiny", "--modes", "eager", *_TWO],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    eager = json.loads(done.stdout.splitlines()[0])
    assert eager["mode"] == "eager"
    assert eager["steps_per_second"] == pytest.approx(sum(eager["each"]))
    assert len(eager["each"]) == 2


@pytest.mark.long
def test_a_small_run_needs_torch_and_transformers_alone_and_leaves_gpu_figures_open():
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({REFUSED}))\n"
        "sys.argv = ['gpu_train.py', '--tiny', '--seconds', '0.1']\n"
        "runpy.run_path('benchmarks/gpu_train.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output = json.loads(done.stdout.splitlines()[-1])
    assert len(output["checks"]) == 3
    assert all(check["apart"] < 1e-4 for check in output["checks"].values())
    for found in output["variants"].values():
        # The peak is measured here too, so on a busy machine a step may well be "faster" than it.
        assert found["tokens_per_second"] > 0 and found["mfu"] > 0
        assert found["predicted_bytes"] > 18 * output["parameters"]
        assert found["measured_bytes"] is None and "memory_error" not in found
    assert "target" not in done.stdout


def test_variants_are_read_by_name():
    assert variant("eager:4096x4") == Variant("eager:4096x4", None, 0, 4096, 4)
    name = "compiled.9-checkpointed/2:8192x1"
    assert variant(name) == Variant(name, 0.9, 2, 8192, 1)
    assert variant("compiled-checkpointed:512x2").checkpoint_every == 1
    with pytest.raises(ValueError, match="variant 'fast'"):
        variant("fast")


@pytest.mark.parametrize("tokens", [100, 4096, 12_288 - 128])
def test_lines_are_full_and_texts_within_the_limit(tokens: int):
    ids, segments, labels = line(tokens, 512, 1000, seed=3)
    assert len(ids) == segments.sum() == tokens
    assert (segments[:, 0] + segments[:, 1:].max(axis=1)).max() <= 512
    assert labels.sum(axis=1) == pytest.approx(1.0)


def test_flops_are_six_a_weight_and_what_the_mask_lets_see():
    model = build(TINY, torch.bfloat16, "cpu")
    assert torch.get_default_dtype() == torch.float32
    batches = optimizer_batch(variant("eager:300x2"), 64, TINY["vocab_size"], 1)
    assert sum(float(batch.weights.sum()) for batch in batches) == pytest.approx(1.0)
    seen = sum(
        int((packed_layout._mask(tuple(row)) == 0).sum())
        for batch in batches
        for row in batch.inputs["segments"].tolist()
    )
    attention = TINY["num_hidden_layers"] * seen * 3 * 4 * TINY["hidden_size"]
    assert model_flops(batches, model) == 6 * multiplied(model) * 600 + attention
    embedded = sum(p.numel() for p in model.parameters()) - multiplied(model)
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert embedded - vectors == TINY["vocab_size"] * TINY["hidden_size"]


@pytest.mark.slow
def test_compiled_blocks_keep_what_is_predicted():
    """The states stand, and autograd saves less than for eager blocks, by as much as is said."""
    model = build(TINY | {"num_hidden_layers": 1}, torch.bfloat16, "cpu")
    (batch,) = optimizer_batch(CHECKED, 64, TINY["vocab_size"], 0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def states_and_saved(keep: float | None, every: int = 0) -> tuple[torch.Tensor, int]:
        set_up(model, keep, every)
        saved: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            place = tensor.untyped_storage().data_ptr()
            if place not in weights:
                saved[place] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            states = packed_attention.packed(model, **batch.inputs)
        return states, sum(t.untyped_storage().nbytes() for t in saved.values())

    expected, by_eager = states_and_saved(None)
    states, by_compiled = states_and_saved(0.9)
    torch.testing.assert_close(states, expected, atol=0.05, rtol=0.02)
    shape = shape_of(Qwen2Config(**TINY).to_dict())
    (one, _), (two, _) = (
        activation_bytes(replace(shape, layers=n), precision="bf16", tokens=1) for n in (1, 2)
    )
    less = batch.tokens * (two - one - compiled_bytes(shape, 0.9))
    assert by_eager - by_compiled == pytest.approx(less, rel=0.02)
    again, by_checkpointed = states_and_saved(0.9, every=1)
    assert torch.equal(again, states)
    assert by_checkpointed < 0.3 * by_compiled


def test_blocks_are_set_up_anew_each_time(monkeypatch: pytest.MonkeyPatch):
    def compile_nothing(block: torch.nn.Module, **options: object) -> None:
        block._compiled_call_impl = block._call_impl

    monkeypatch.setattr(torch.nn.Module, "compile", compile_nothing)
    model = build(TINY, torch.bfloat16, "cpu")

    def checkpointed_and_compiled() -> tuple[int, int]:
        return (
            sum(block.gradient_checkpointing for block in model.layers),
            sum(block._compiled_call_impl is not None for block in model.layers),
        )

    set_up(model, None, 2)
    assert checkpointed_and_compiled() == (2, 0)
    set_up(model, 0.9, 2)
    assert checkpointed_and_compiled() == (0, 3)  # compiled ones are checkpointed from outside
    set_up(model, None, 1)
    assert checkpointed_and_compiled() == (3, 0)
    set_up(model, 1.0, 0)
    assert checkpointed_and_compiled() == (0, 3)
    set_up(model, None, 0)
    assert checkpointed_and_compiled() == (0, 0)
