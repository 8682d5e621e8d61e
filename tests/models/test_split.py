"""A model over several devices computes what it computes on one; here all of them are CPUs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.testing.families import save_family
from tests.testing.jobs import MODEL, job, rows
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.inference import last_states
from w2s_ray.models.language_model import answer_log_probs, load_language_model
from w2s_ray.models.split import split, split_over
from w2s_ray.models.structure import blocks_of, own_attention

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "OPT-350m", "Falcon with alibi"])
def test_states_are_those_of_the_whole_model(tmp_path: Path, family: str) -> None:
    """Bit for bit those of separate rows, and up to rounding those of packed ones."""
    model = save_family(family, tmp_path / "model")
    whole, parts = (load_backbone(model, "fp32", "cpu") for _ in range(2))
    tokens = job().encoded(rows(9), whole.tokenizer)
    states = last_states(split_over(parts, [CPU, CPU]), tokens)
    torch.testing.assert_close(states, last_states(whole, tokens), atol=1e-4, rtol=1e-4)
    whole.module.config._attn_implementation = own_attention(whole.module.config)
    assert (states == last_states(whole, tokens)).all()


def test_each_device_has_a_stretch_of_blocks_which_is_sent_the_states() -> None:
    """``meta`` computes nothing, so the states cannot come back from it."""
    backbone = split_over(load_backbone(MODEL, "fp32", "cpu"), [CPU, META])
    first, second = blocks_of(backbone.module)
    assert {p.device for p in second.parameters()} == {META}
    rest = {p.device for p in backbone.module.parameters()} - {META}
    assert {p.device for p in first.parameters()} == rest == {CPU}
    arrived = []
    second.mlp.register_forward_pre_hook(lambda part, states: arrived.append(states[0].device))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        last_states(backbone, job().encoded(rows(2), backbone.tokenizer))
    assert arrived == [META]


def test_answers_are_as_likely_as_by_the_whole_model(tmp_path: Path) -> None:
    """The head is on the first device, apart from the embeddings that it shares weights with."""
    model = load_language_model(save_family("GPT-2", tmp_path / "model"), "fp32", gpus=2)
    tokens = job().encoded(rows(9), model.backbone.tokenizer)
    found = answer_log_probs(model, tokens)
    parts = replace(model, backbone=split_over(model.backbone, [CPU, CPU]))
    np.testing.assert_allclose(answer_log_probs(parts, tokens), found, rtol=1e-4, atol=1e-3)


def test_a_process_with_too_few_gpus_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(MODEL, "fp32", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert split(backbone, 99) is backbone
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert split(backbone, 1) is backbone
    with pytest.raises(RuntimeError, match="needs 99 GPUs of one machine, this process has"):
        split(backbone, 99)
