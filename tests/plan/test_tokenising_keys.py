"""Which choices and tokenizers enter a key, and that those which change no number do not."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.testing.specs import TINY_MODEL, tiny_config, tiny_spec
from tests.testing.tokenizer_kinds import lossless
from w2s_ray.plan.build import build
from w2s_ray.plan.configs import PrepareConfig, TrainConfig, Training
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.schema import Spec


def plan(**changes: Any) -> Plan:
    return build(Spec.model_validate(tiny_spec(**changes)))


def reading_with(folder: Path, tokenizer: Any, **changes: Any) -> Plan:
    """The plan of two models with a tokenizer that lies in ``folder``."""
    tokenizer.save_pretrained(folder)
    models = {
        name: {**TINY_MODEL, "config": tiny_config(size), "tokenizer": str(folder)}
        for name, size in (("small", 16), ("large", 32))
    }
    return plan(models=models, **changes)


def test_defaults_that_are_written_out_are_the_same_study() -> None:
    written = {"render": "transcript", "bos": False, "identical_pairs": "leave_out"}
    training = {"precision": "fp32", "max_length_tokens": 128, "batch_size": 8}
    assert set(plan(training={**training, **written}).steps) == set(plan().steps)


def moved(**changes: Any) -> Counter[str]:
    """How many steps of each kind have keys that the plan without the changes has not."""
    trainable = {"grid__trainable": ["full", "last_layer"]}
    before = plan(**trainable).steps
    steps = plan(**trainable, **changes).steps.values()
    return Counter(step.kind.name for step in steps if step.key not in before)


def test_each_choice_moves_the_steps_that_it_changes() -> None:
    everything = moved(training__render="chat_template")
    assert everything.keys() == plan(grid__trainable=["full", "last_layer"]).count().keys()
    assert moved(training__bos=True) == everything - Counter(prepare=1)
    assert moved(training__identical_pairs="keep") == (
        everything - Counter(prepare=1) - Counter(features=2)
    )


def test_the_file_of_a_template_is_in_the_key_of_what_it_renders(tmp_path: Path) -> None:
    tokenizer = lossless()["bytes"]
    before = reading_with(tmp_path, tokenizer)
    chat = reading_with(tmp_path, tokenizer, training__render="chat_template")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert set(reading_with(tmp_path, tokenizer).steps) == set(before.steps)
    other = reading_with(tmp_path, tokenizer, training__render="chat_template")
    differ = Counter(step.kind.name for step in other if step.key not in chat.steps)
    assert differ["features"] == 2 and not differ["prepare"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__render": "chat_template"},
        {"training__bos": True, "training__identical_pairs": "keep"},
    ],
)
def test_a_record_gives_back_its_training(changes: dict[str, Any]) -> None:
    for step in plan(grid__trainable=["full"], **changes):
        if isinstance(step.config, TrainConfig):
            training = step.config.training
            assert Training.from_json(training.as_json()) == training


def test_messages_are_prepared_where_a_template_reads_them() -> None:
    for render in ("transcript", "chat_template"):
        (step,) = [s for s in plan(training__render=render) if s.kind.name == "prepare"]
        assert step.config_as(PrepareConfig).messages == (render == "chat_template")
