"""The code of a card reads rows as training did: with BOS, by a chat template, as whole texts."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import pre_tokenizers

from tests.testing.exports import card, export, ours, rows_of_test, trained
from tests.testing.tiny_models import tiny
from w2s_ray.data.rendering import Rendering
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import bytes_tokenizer

LENGTH = 90
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("way", ["bos", "chat_template", "whole", "whole, bos"])
@pytest.mark.parametrize("per_row", [1, 2])
def test_the_code_of_the_card_scores_a_row(tmp_path: Path, way: str, per_row: int) -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.bos_token, tokenizer.chat_template = "!", TEMPLATE
    if "whole" in way:
        blank_first = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
        tokenizer.backend_tokenizer.pre_tokenizer = blank_first
    rendering = (
        Rendering("chat_template") if way == "chat_template" else Rendering(bos="bos" in way)
    )
    backbone = replace(tiny("llama"), tokenizer=tokenizer)
    scorer = trained(backbone, per_row, "full")
    plain = card(per_row)
    training = {**plain.config["training"], **rendering.as_json(), "max_length_tokens": LENGTH}
    made = replace(plain, config={**plain.config, "training": training})
    export(tmp_path, backbone, dict(scorer.named_parameters()), card=made)

    found: dict[str, Any] = {}
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    exec(code.replace('folder = "."', f"folder = {str(tmp_path)!r}"), found)
    rows = rows_of_test(per_row).to_pylist()
    question = [[] if per_row == 1 else messages(("user", row["prompt"])) for row in rows]
    role = "user" if per_row == 1 else "assistant"
    conversations = [
        [[*before, *messages((role, answer))] for answer in row["answers"]]
        for before, row in zip(question, rows, strict=True)
    ]
    table = rows_of_test(per_row).append_column("messages", [conversations])
    if per_row == 1:
        table = table.set_column(1, "prompt", [[""] * len(rows)])
    expected = ours(scorer, encode(table, tokenizer, LENGTH, rendering))
    if per_row == 1:
        probs = found["probabilities"]([row["answers"][0] for row in rows])
        torch.testing.assert_close(probs.double(), expected, atol=1e-5, rtol=0)
        return
    for row, before, p in zip(rows, question, expected[:, 1].tolist(), strict=True):
        prompt = before if way == "chat_template" else row["prompt"]
        a, b = found["rewards"](prompt, row["answers"])
        assert torch.sigmoid(a - b).item() == pytest.approx(p, abs=1e-5)
