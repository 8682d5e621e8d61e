"""Which steps may be run together follows from how and on what they train."""

import pytest

from tests.testing.steps import a_step
from w2s_ray.plan.step import Step


def student(**execution: object) -> Step:
    return a_step(
        "student",
        "k",
        inputs={"prepare": "p"},
        trainable="lora",
        **{"lora_together": 4, **execution},
    )


def test_adapters_are_fused_where_the_spec_asks_for_it() -> None:
    fusion = student().fusion
    assert fusion is not None
    assert fusion.limit == 4
    assert student(lora_together=1).fusion is None


@pytest.mark.parametrize(
    "execution", [{"workers": 2}, {"offload": "optimizer"}, {"offload": "parameters"}]
)
def test_adapters_that_need_an_engine_of_their_own_run_alone(execution: dict[str, object]) -> None:
    assert student(**execution).fusion is None
