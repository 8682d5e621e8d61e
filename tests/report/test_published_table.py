"""Published accuracies stand beside a study's own only where the setting is the published one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from w2s_ray.report.answers import Answer, Score
from w2s_ray.report.published_table import _published, published_table
from w2s_ray.report.settings import Setting
from w2s_ray.statistics.decomposition import Estimate
from w2s_ray.statistics.proportions import Interval

ROOT = Path(__file__).parents[2]


def an_answer(noise: float = 0.0, **changes: Any) -> Answer:
    axes: dict[str, Any] = {
        **{"data": "cai-harmless", "weak": "gpt2", "strong": "gpt2-medium", "chain": ""},
        **{"loss": "reverse_kl", "loss_parameters": "{}", "noise_ratio": noise, "control": ""},
        **{"combine": "mean", **_published()["setting"], **changes},
    }
    row = {**axes, "status": "done"}
    score = Score(Estimate(0.9, 1e-5, 100.0), Interval(0.89, 0.91, "t"))
    return Answer(Setting(axes, (row,)), "seed", (0,), 0, student=score)


def test_the_published_value_has_an_error_of_its_own() -> None:
    table = published_table([an_answer(), an_answer(0.4)], "select 1")
    assert table is not None
    values = [row[3] for row in table.rows]
    assert [cell.value for cell in values] == pytest.approx([0.915, 0.806])
    for cell in values:
        assert cell.low is not None and cell.high is not None and cell.value is not None
        half = 1.96 * (cell.value * (1 - cell.value) / 4000) ** 0.5
        assert cell.high - cell.low == pytest.approx(2 * half, rel=0.02)
    assert [row[5].value for row in table.rows] == pytest.approx([0.9 - 0.915, 0.9 - 0.806])
    assert "told apart from 1.0 points" in table.notes[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"trainable": "last_layer"},
        {"learning_rate": 3e-5},
        {"data": "hh"},
        {"confidence_weight": 0.5},
        {"control": "untrained"},
        {"noise": 0.25},
        {"label_filter": "confidence"},
        {"train_rows": 100},
        {"anchor": 1.0},
    ],
)
def test_another_setting_has_no_published_value(changes: dict[str, Any]) -> None:
    assert published_table([an_answer(**changes)], "select 1") is None


def test_the_numbers_are_those_of_the_protocol_and_the_names_those_of_the_specs() -> None:
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    names: set[str] = set()
    for spec in ("gpt2", "qwen"):
        content = yaml.safe_load((ROOT / "study_specs" / f"{spec}.yaml").read_text())
        names |= {*content["models"], *content["data"]}
    rows = _published()["accuracies"]
    assert len(rows) == 3 * 4 + 4 * 4 + 3 * 2
    for row in rows:
        assert {row["data"], row["weak"], row["strong"]} <= names
        assert f"{row['accuracy']:.1f}" in protocol
