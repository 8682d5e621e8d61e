"""What is computed decides a key, how and where never does (docs/protocol.md §5, fault 1)."""

import pytest

from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load

SCIENCE = {
    "grid__seed": [7],
    "grid__combine": ["product"],
    "grid__label_temperature": [0.5],
    "grid__label_filter": {"keep": 0.5, "by": "confidence"},
    "grid__relabel": ["probe"],
    "grid__example_weight": ["confidence"],
    "grid__weak_seed": [5],
    "grid__train_rows": [30],
    "grid__noise_ratio": [0.3],
    "grid__noise_strength": [0.0],
    "grid__confidence_weight": [0.5],
    "grid__confidence_warmup": [0.3],
    "grid__confidence_form": ["sum"],
    "grid__loss": [{"name": "symmetric_ce", "a": 1.0, "b": 0.2}],
    "grid__trainable": ["full"],
    "grid__learning_rate": [0.5],
    "grid__readout_block": [1],
    "grid__weight_decay": [0.1],
    "grid__anchor": [0.01],
    "grid__epochs": [2],
    "grid__batch_size": [4],
    "grid__pair": [["large", "small"]],
    "training__max_length_tokens": 64,
    "training__render": "chat_template",
    "training__bos": True,
    "training__identical_pairs": "keep",
    "training__precision": "bf16",
    "training__schedule": "constant",
    "training__solver": "newton",
    "training__clip_norm": 1.0,
    "training__adam_betas": [0.9, 0.99],
    "training__adam_epsilon": 1e-6,
    "training__label_clip": 0.01,
    "training__weak_seed": 5,
    "training__label_neighbours": 7,
    "training__weak": {"epochs": 3},
    "training__evaluations": 3,
    "validation": {"rows": 8},
}
ONE = {
    "grid__loss": [{"name": "symmetric_ce", "a": 1.0, "b": 0.1}],
    "grid__noise_ratio": [0.0],
}
# What an axis has an effect with; without, see tests/plan/test_effects.py.
WITH = {
    "training__label_neighbours": {"grid__relabel": ["knn"]},
    "grid__combine": {"grid__pair": [[["small", "large"], "large"]]},
    "grid__noise_strength": {"grid__noise_ratio": [0.1]},
    "grid__confidence_warmup": {"grid__confidence_weight": [0.1]},
    "grid__confidence_form": {"grid__confidence_weight": [0.1]},
    "training__evaluations": {"validation": {"rows": 8}},
}


def student(write_spec, **changes):
    (cell,) = build(load(write_spec(**{**ONE, **changes}))).cells
    return cell.keys["student"]


@pytest.mark.parametrize("field", SCIENCE)
def test_every_field_of_the_science_changes_the_key(write_spec, field):
    beside = WITH.get(field, {})
    changed = student(write_spec, **beside, **{field: SCIENCE[field]})
    assert student(write_spec, **beside) != changed


def test_data_changes_the_key(write_spec):
    data = {
        "kind": "preference",
        "source": "generate:agreement",
        "sizes": {"ground_truth": 48, "weak": 40, "test": 32},
    }
    keys = {
        student(write_spec, data={"pairs": {**data, **change}})
        for change in ({}, {"seed": 1}, {"sizes": {**data["sizes"], "test": 31}})
    }
    assert len(keys) == 3


def test_init_seed_and_width_of_a_model_change_the_key(write_spec):
    from tests.testing.specs import TINY_MODEL, tiny_config

    def with_large(**change):
        large = {**TINY_MODEL, "config": tiny_config(32), **change}
        small = {**TINY_MODEL, "config": tiny_config(16)}
        return student(write_spec, models={"small": small, "large": large})

    keys = {
        with_large(),
        with_large(init_seed=1),
        with_large(num_layers=1),
        with_large(config=tiny_config(48)),
    }
    assert len(keys) == 4


def test_execution_and_names_never_change_a_key(write_spec, tmp_path):
    execution = {
        "workers": 4, "zero_stage": 3, "micro_batch_tokens": 512, "cpus_per_worker": 3,
        "gpus_per_worker": 1, "max_concurrent_steps": 2, "keep_models": ["weak", "student"],
    }  # fmt: skip
    assert student(write_spec) == student(write_spec, execution=execution)
    assert student(write_spec) == student(write_spec, study="other", store=str(tmp_path / "else"))


def test_a_file_that_changes_changes_every_key_that_rests_on_it(write_spec, tmp_path):
    def keys(text):
        for name in ("ground_truth", "weak", "test"):
            row = f'{{"prompt": "{name}", "chosen": "{text}", "rejected": "no"}}\n'
            (tmp_path / f"{name}.jsonl").write_text(row)
        splits = {name: f"{name}.jsonl" for name in ("ground_truth", "weak", "test")}
        spec = write_spec(data={"pairs": {"kind": "preference", "splits": splits}})
        return set(build(load(spec)).steps)

    assert keys("yes").isdisjoint(keys("oui"))
    assert keys("yes") == keys("yes")


def test_weak_ceiling_and_labels_are_shared_by_all_losses_and_noises(write_spec):
    grid = {
        "pair": [["small", "large"]],
        "loss": ["forward_ce", "reverse_kl", "reverse_ce"],
        "noise_ratio": [0.0, 0.2],
        "confidence_weight": [0.0, 0.5],
        "trainable": ["full"],
        "seed": [0, 1],
    }
    plan = build(load(write_spec(grid=grid)))
    assert plan.count() == {
        "prepare": 1, "weak": 2, "label": 2, "ceiling": 2, "student": 24, "evaluate": 30,
    }  # fmt: skip


def test_predictions_of_training_rows_are_execution(write_spec):
    with_them = build(load(write_spec()))
    without = build(load(write_spec(execution__train_predictions=False)))
    assert with_them.steps.keys() == without.steps.keys()
    for key, step in with_them.steps.items():
        if step.kind.trains:
            assert step.execution.train_predictions
            assert not without.steps[key].execution.train_predictions


def test_another_weak_model_gets_labels_of_its_own(write_spec):
    plan = build(load(write_spec(grid__pair=[["small", "large"], ["large", "large"]])))
    assert plan.count()["label"] == 2


@pytest.mark.long
def test_ten_thousand_cells_are_planned_with_unique_keys(write_spec):
    grid = {
        "pair": [["small", "large"]],
        "loss": ["forward_ce", "forward_kl", "reverse_kl", "reverse_ce", "jeffreys"],
        "noise_ratio": [n / 100 for n in range(20)],
        "confidence_weight": [0.0, 0.5],
        "trainable": ["last_layer"],
        "seed": list(range(50)),
    }
    plan = build(load(write_spec(grid=grid)))
    assert len({cell.keys["student"] for cell in plan.cells}) == 10_000
    assert plan.count()["evaluate"] == 10_000 + 150
