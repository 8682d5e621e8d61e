"""Which steps may be run together is told by how and on what they train."""

import pytest

from w2s_ray.plan.fusion import fusion_key, most_together
from w2s_ray.plan.graph import Step

CONFIG = {"training": {"trainable": "lora"}, "model": {}, "seed": 0}


def student(**execution: object) -> Step:
    return Step("student", "k", "", 1, CONFIG, {"prepare": "p"}, {"lora_together": 4, **execution})


def test_adapters_are_fused_where_the_spec_asks_for_it() -> None:
    assert most_together(student()) == most_together(student(offload="none", workers=1)) == 4
    assert most_together(student(lora_together=1)) is None


@pytest.mark.parametrize(
    "execution", [{"workers": 2}, {"offload": "optimizer"}, {"offload": "parameters"}]
)
def test_adapters_that_need_an_engine_of_their_own_run_alone(execution: dict[str, object]) -> None:
    assert fusion_key(student(**execution)) is None
