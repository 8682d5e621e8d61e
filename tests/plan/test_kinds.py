"""Every row of the table of kinds names modules that can do what the row says."""

import inspect
from importlib import import_module

import pytest

from tests.testing.steps import a_step
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Kind


def parameters(module: str, function: str) -> list[str]:
    return list(inspect.signature(getattr(import_module(module), function)).parameters)


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_the_module_of_a_kind_runs_one_step(kind: Kind) -> None:
    assert parameters(kind.module, "run") == ["step", "inputs", "draft", "context"]


@pytest.mark.parametrize("trainable", ["last_layer", "lora"])
@pytest.mark.parametrize("kind", ["student", "label", "evaluate"])
def test_the_module_of_a_fusion_runs_a_group(kind: str, trainable: str) -> None:
    inputs = {"features": "f", "prepare": "p"}
    fusion = a_step(kind, "k", inputs=inputs, trainable=trainable, lora_together=2).fusion
    assert fusion is not None
    assert parameters(fusion.module, "run_together") == ["steps", "artifacts", "context"]
