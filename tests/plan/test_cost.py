"""The plan's operations are those that torch counts in a real model, summed over a step's rows."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.testing.specs import TINY_MODEL
from w2s_ray.catalog.shapes import shape
from w2s_ray.models.backbone import load_backbone
from w2s_ray.plan.build import build
from w2s_ray.plan.cost import TOKENS_PER_ROW, estimate, flops
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import ModelSpec

ROWS = {"ground_truth": 48, "weak": 40, "test": 32}  # of the tiny study, in generated pairs
# Its blocks have far more weights than its embedding, which is looked up and not multiplied.
MODEL = {**TINY_MODEL, "config": {"hidden_size": 128, "num_hidden_layers": 3}}


@pytest.fixture(scope="module")
def counted():
    """Operations a token of this model, by torch's own count: (forward, forward and backward)."""
    module = load_backbone(ModelSpec.model_validate(MODEL), "fp32", "cpu").module
    ids = torch.arange(TOKENS_PER_ROW["generated"])[None]
    with FlopCounterMode(display=False) as forward:
        states = module(input_ids=ids, use_cache=False).last_hidden_state
    with FlopCounterMode(display=False) as backward:
        states.sum().backward()
    one, other = forward.get_total_flops(), backward.get_total_flops()
    return one / ids.numel(), (one + other) / ids.numel()


def test_a_step_costs_what_torch_counts(write_spec, counted):
    spec = load(
        write_spec(
            models={"small": MODEL, "large": {**MODEL, "init_seed": 1}},
            grid__trainable=["full", "last_layer"],
            grid__noise_ratio=[0.0],
            grid__epochs=[3],
            training__weak={"epochs": 2},
        )
    )
    plan = build(spec)
    forward, both = counted
    trained = {
        "weak": 2 * ROWS["ground_truth"],
        "ceiling": 3 * ROWS["ground_truth"],
        "student": 3 * ROWS["weak"],
    }
    scored = {"features": sum(ROWS.values()), "label": ROWS["weak"]}
    each = flops(plan)
    for step in plan:
        rows_forward = scored.get(step.kind.name, ROWS["test"])
        if step.kind.name in ("student", "ceiling"):  # and the students' training rows
            rows_forward += ROWS["weak"]
        expected = forward * rows_forward + both * trained.get(step.kind.name, 0)
        on_features = step.kind.name != "features" and "features" in step.inputs
        runs_a_model = step.kind.trains or step.kind.scored
        if on_features or not runs_a_model:
            expected = 0.0
        # The embedding counts among the plan's parameters: 5 % of this model.
        expected *= TOKENS_PER_ROW["generated"]
        assert each[step.key] == pytest.approx(expected, rel=0.08), step.kind.name


def test_implicit_rewards_take_two_models(write_spec):
    """Besides its training, DPO passes its rows through the model before and the trained one."""
    models = {"small": MODEL, "large": {**MODEL, "init_seed": 1}}
    weak = {"trainable": "full", "epochs": 2}
    by_head = build(load(write_spec(models=models, training__weak=weak)))
    weak["objective"] = "implicit_reward"
    by_reward = build(load(write_spec(models=models, training__weak=weak)))

    def forward_rows(plan, kind):
        """Passes of a row of a kind's first step, of 2 N operations a token."""
        step = next(step for step in plan if step.kind.name == kind)
        size = shape(step.model).parameters
        return flops(plan)[step.key] / size / 2 / TOKENS_PER_ROW["generated"]

    trained, test = 2 * 3 * ROWS["ground_truth"], ROWS["test"]
    assert forward_rows(by_head, "weak") == trained + test
    assert forward_rows(by_reward, "reward") == trained + 2 * test + 2 * ROWS["ground_truth"]
    assert forward_rows(by_head, "label") == ROWS["weak"]
    assert forward_rows(by_reward, "label") == 2 * ROWS["weak"]


def test_costs_of_steps_sum_to_that_of_the_plan(write_spec):
    spec = load(write_spec(grid__trainable=["full", "last_layer"]))
    plan = build(spec)
    each = flops(plan)
    assert each.keys() == plan.steps.keys()
    cost = estimate(plan)
    assert cost.flops == pytest.approx(sum(filter(None, each.values()))) and cost.unknown_steps == 0


def test_the_guess_of_a_generated_row_is_near_its_words(write_spec):
    """Tokens of English are words and marks, roughly: 16 a generated row, its prompt once."""
    from w2s_ray.data.agreement import generate

    rows = generate(0, 300)
    words = [len(f"{row['prompt']} {row['chosen']} {row['rejected']}".split()) for row in rows]
    assert 0.6 < sum(words) / len(words) / TOKENS_PER_ROW["generated"] <= 1.0
