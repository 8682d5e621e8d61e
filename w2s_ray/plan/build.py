"""From a spec to the unique graph of steps.

Every step's configuration is complete: defaults are resolved, models and data are named by the
digest of their content. Two cells that need the same step therefore share it, and a file that
changes on disk changes every key that depends on it. Cells that differ only in axes without effect
(``effects``) share their student too; each stays a cell, with its values as written.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from w2s_ray.capacity.execution import Execution
from w2s_ray.catalog.shapes import shape
from w2s_ray.data.sources import data_identity
from w2s_ray.errors import InputError, at
from w2s_ray.objectives.calibration import HELD_OUT
from w2s_ray.plan import teachers
from w2s_ray.plan.configs import (
    Config,
    EvaluateConfig,
    FeaturesConfig,
    LabelConfig,
    Noise,
    PrepareConfig,
    RewardConfig,
    StudentConfig,
    StudentObjective,
    TrainConfig,
    Training,
    WeakConfig,
)
from w2s_ray.plan.controls import control_points, controlled, untrained_config
from w2s_ray.plan.effects import effective, link_points
from w2s_ray.plan.generation import TextBuilder
from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.layouts import Layouts
from w2s_ray.plan.model_identities import model_identities
from w2s_ray.plan.row_counts import check_rows
from w2s_ray.plan.step import Kind, Step, key_of
from w2s_ray.plan.teachers import features_key
from w2s_ray.plan.test_steps import TestSteps
from w2s_ray.plan.trainings import Trainings
from w2s_ray.plan.treatments import treated_name, treatment_of, unanchored
from w2s_ray.spec.expansion import CellPoint, expand
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.spec.schema import Spec
from w2s_ray.spec.selection import Rule
from w2s_ray.store.selection import rule_for

_CHOSEN = ("student", "ceiling", "strong_on_weak_rows")  # kinds whose step a rule chooses


def build(spec: Spec | GenerationSpec) -> Plan:
    """The plan of a spec.

    Raises:
        InputError: unreadable data or model, or two cells that compute the same thing (two names
            for one model, say); both are named. Its ``place`` is the part of the spec at fault.
    """
    return Builder(spec).plan() if isinstance(spec, Spec) else TextBuilder(spec).plan()


class Builder:
    """Builds the steps of one spec; a method for each kind of step.

    Attributes:
        spec: the spec.
        steps: those added so far, by key.
        model_identities: what the weights of each model are.
        layouts: how steps are run.
        shared: steps of many cells under a short name, which saves hashing.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.steps: dict[str, Step] = {}
        self.model_identities = model_identities(spec.models, spec.training)
        self._data_identities = {name: self._data_identity(name) for name in spec.data}
        self.layouts = Layouts(spec)
        self.shared: dict[tuple[Any, ...], Step] = {}
        self.trainings = Trainings(spec.training)
        self._tests = TestSteps(self)

    def plan(self) -> Plan:
        """All steps and cells.

        Raises:
            InputError: two cells have one student, and not because an axis has no effect; or no
                row remains for a student.
        """
        cells: list[Cell] = []
        owners: dict[str, CellPoint] = {}
        points = expand(self.spec)
        for point in (*points, *control_points(points, self.spec.controls)):
            cell = self._cell(point)
            if point.control:  # it may be a student of the grid too
                cells.append(cell)
                continue
            other = owners.setdefault(cell.keys["student"], point)
            if other is not point and self._effective(other) != self._effective(point):
                raise InputError(
                    f"grid: two cells compute the same student (key {cell.keys['student']}): "
                    f"{other} and {point}; do two names stand for one model or data set?",
                    ("grid",),
                )
            cells.append(cell)
        for name, data in self.spec.data.items():
            if data.sizes.weak is not None:
                own = [step for step in self.steps.values() if step.data is data]
                check_rows(own, name, data.sizes.weak)
        select = self.spec.select
        chosen = None if select is None else select.model_dump(mode="json")
        return Plan(self.spec.study, self.steps, tuple(cells), chosen)

    def prepare(self, data: str) -> Step:
        """The rows of a data set."""
        config = PrepareConfig(
            self._data_identities[data], messages=self.spec.training.render == "chat_template"
        )
        name = ("prepare", data)
        if name not in self.shared:
            self.shared[name] = self.add(KINDS["prepare"], data, config, {}, data=data)
        return self.shared[name]

    def features(self, data: str, model: str, training: Training) -> Step:
        """The frozen states that last layers of a model are trained on.

        Raises:
            InputError: the model has fewer blocks than ``readout_block``.
        """
        block = training.readout_block
        config = FeaturesConfig(
            self.model_identities[model],
            training.precision,
            training.max_length_tokens,
            training.rendering,
            block,
        )
        name = ("features", data, model, block)
        if name not in self.shared:
            self._check_blocks(model, block)
            self.shared[name] = self.add(
                KINDS["features"],
                f"{data}-{model}" + ("" if block is None else f"-b{block}"),
                config,
                {"prepare": self.prepare(data).key},
                self.layouts.inference(model, "features"),
                model=model,
                data=data,
            )
        return self.shared[name]

    def untrained(self, data: str, model: str) -> Step:
        """The answers that a model finds more probable before any training."""
        config = untrained_config(self.model_identities[model], self.spec.training)
        inputs = {"prepare": self.prepare(data).key}
        layout, name = self.layouts.inference(model, "untrained"), f"{data}-{model}"
        return self.add(KINDS["untrained"], name, config, inputs, layout, model=model, data=data)

    def _check_blocks(self, model: str, block: int | None) -> None:
        known = shape(self.spec.models[model])
        if block is not None and known is not None and block > known.layers:
            raise InputError(
                f"grid.readout_block: given {block}, expected at most {known.layers}, the blocks "
                f"of model '{model}'",
                ("grid", "readout_block"),
            )

    def trained_on_truth(
        self, kind: Kind, data: str, model: str, training: Training, seed: int
    ) -> Step:
        """A weak model or a ceiling, always with forward cross-entropy."""
        held_out = 0 if kind.name == "weak" else self._validation_rows
        config = TrainConfig(self.model_identities[model], training, seed, validation_rows=held_out)
        if kind.name == "weak" and self.spec.training.weak.calibrate != "none":
            config = WeakConfig(config.model, training, seed, HELD_OUT)
        name = (kind.name, data, model, training, seed)
        if name not in self.shared:
            self.shared[name] = self.add(
                kind,
                f"{data}-{model}-{training.trainable}-s{seed}",
                config,
                self._training_inputs(data, model, training),
                self.layouts.training(data, model, training),
                model=model,
                data=data,
            )
        return self.shared[name]

    def reward(self, data: str, model: str, training: Training, seed: int) -> Step:
        """A weak language model that learns the true preferences by DPO, in one process.

        Raises:
            InputError: it needs more than one GPU.
        """
        name = ("reward", data, model, training, seed)
        if name not in self.shared:
            beta = self.spec.training.weak.beta
            self.shared[name] = self.add(
                KINDS["reward"],
                f"{data}-{model}-{training.trainable}-s{seed}",
                RewardConfig(self.model_identities[model], training, seed, beta),
                {"prepare": self.prepare(data).key},
                self.layouts.alone(data, model, training),
                model=model,
                data=data,
                second_model=model,  # as it was before
            )
        return self.shared[name]

    @property
    def _validation_rows(self) -> int:
        """Rows of the split ``weak`` that students and ceilings are scored on while they train."""
        return 0 if self.spec.validation is None else self.spec.validation.rows

    def label(self, data: str, model: str, weak: Step) -> Step:
        """The soft labels of a weak model, or of a student, for the students' rows."""
        learned_from, slug = ("label", "label_features"), f"by-{weak.slug}"
        inputs = {role: key for role, key in weak.inputs.items() if role not in learned_from}
        inputs["weak"] = weak.key
        calibrate = self.spec.training.weak.calibrate
        if weak.kind.name == "student":
            calibrate = "none"  # it holds no true labels out
        else:
            slug = f"{data}-by-{model}-s{weak.config_as(TrainConfig).seed}"
        by_reward = weak.kind.name == "reward"  # which has two models
        kind = "reward" if by_reward else None if "features" in weak.inputs else "label"
        name = ("label", weak.key)
        if name not in self.shared:
            self.shared[name] = self.add(
                KINDS["label"],
                slug,
                LabelConfig(calibrate),
                inputs,
                self.layouts.inference(model, kind),
                model=model,
                data=data,
                second_model=model if by_reward else None,
            )
        return self.shared[name]

    def student(self, point: CellPoint, training: Training, label: Step) -> Step:
        """A strong model trained on the weak labels.

        Args:
            point: with axes without effect at their canonical values; every such point has a
                student of its own.
        """
        inputs = self._training_inputs(point.data, point.strong, training)
        treatment = treatment_of(point, self.spec.training)
        if treatment.judges and "features" not in inputs:
            inputs["label_features"] = self.features(point.data, point.strong, training).key
        config = StudentConfig(
            self.model_identities[point.strong],
            training,
            point.seed,
            self._objective(point),
            Noise(point.noise_ratio, point.noise_strength),
            treatment,
            point.train_rows,
            point.anchor,
            validation_rows=self._validation_rows,
        )
        anchored = point.anchor > 0.0
        execution = self.layouts.training(point.data, point.strong, training, anchored=anchored)
        if anchored and execution.uses_deepspeed:
            raise unanchored(point, execution)
        return self.add(
            KINDS["student"],
            f"{point.data}-{'-'.join(point.students)}-{point.loss}-n{point.noise_ratio:g}"
            f"-c{point.confidence_weight:g}{treated_name(point)}-{point.trainable}-s{point.seed}",
            config,
            {"label": label.key, **inputs},
            execution,
            model=point.strong,
            data=point.data,
        )

    def evaluate(self, model: Step, weak: Step | None = None) -> Step:
        """Scores of a model; with ``weak`` also its distance to that model.

        Where steps are chosen, a student is scored at the step that the rule chooses, and a strong
        model trained on true labels at its best by those of the validation rows.
        """
        reference = {} if weak is None else {"weak": weak.key}
        select, step_by = self.spec.select, None
        if select is not None and select.step_by is not None and model.kind.name in _CHOSEN:
            config, kind = model.config, model.kind.name
            is_shuffled = isinstance(config, StudentConfig) and config.labels.shuffled
            step_by = rule_for("shuffled_labels" if is_shuffled else kind, select.by)
        name = ("evaluate", model.key, *reference.values())
        if name not in self.shared:
            self.shared[name] = self.add(
                KINDS["evaluate"],
                f"{model.kind}-{model.slug}",
                EvaluateConfig(self.spec.training.label_clip, step_by=cast("Rule | None", step_by)),
                {"model": model.key, **reference},
            )
        return self.shared[name]

    def add(
        self,
        kind: Kind,
        slug: str,
        config: Config,
        inputs: Mapping[str, str],
        execution: Execution = Execution(),  # noqa: B008 (frozen)
        *,
        model: str | None = None,
        data: str | DataSpec | None = None,
        second_model: str | None = None,
    ) -> Step:
        """The step of this identity, added to the plan unless it is there.

        Args:
            model: name in the spec, as ``second_model``.
            data: name in the spec, or a further test set (``data.test_sets.as_data``).
        """
        key = key_of(kind, config, inputs)
        if key not in self.steps:
            self.steps[key] = Step(
                kind,
                key,
                slug,
                config,
                inputs,
                execution,
                None if model is None else self.spec.models[model],
                self.spec.data[data] if isinstance(data, str) else data,
                None if model is None else self.model_identities[model],
                second_model=None if second_model is None else self.spec.models[second_model],
            )
        return self.steps[key]

    def _cell(self, point: CellPoint) -> Cell:
        data, effective = point.data, self._effective(point)
        self.prepare(data)
        weak = teachers.weak_models(self, effective)
        training = self.trainings.strong(effective)
        ceiling = self.trained_on_truth(KINDS["ceiling"], data, point.strong, training, point.seed)
        teacher = teachers.weak_side(self, effective, weak)
        *links, last = link_points(effective)
        for number, link in enumerate(links, start=1):
            teacher = teachers.next_link(self, teacher, link, training, number)
        if point.control:
            student = controlled(self, last, training, teacher.label)
        else:
            student = self.student(last, training, teacher.label)
        keys = {
            "prepare": student.inputs["prepare"],
            "weak": teacher.weak.key,
            "weak_evaluate": self.evaluate(teacher.weak).key,
            "label": teacher.label.key,
            "ceiling": ceiling.key,
            "ceiling_evaluate": self.evaluate(ceiling).key,
            "ceiling_against_weak": self.evaluate(ceiling, teacher.weak).key,
            "student": student.key,
            "student_evaluate": self.evaluate(student, teacher.weak).key,
            **features_key("features", student),
            **features_key("weak_features", teacher.weak),
            **teacher.upstream,
        }
        tests = self._tests.keys(
            point, members=weak, weak=teacher.weak, ceiling=ceiling, student=student
        )
        return Cell(self._values(point), keys, tests)

    def _values(self, point: CellPoint) -> dict[str, Any]:
        """The cell's own columns of ``results``: every axis, and what the spec fixes for all."""
        axes = {field.name: getattr(point, field.name) for field in fields(point)}
        axes["loss_parameters"] = dict(point.loss_parameters)
        return {"study": self.spec.study, **axes, "label_clip": self.spec.training.label_clip}

    def _effective(self, point: CellPoint) -> CellPoint:
        return effective(point, self.spec.training)

    def _data_identity(self, name: str) -> dict[str, Any]:
        """What the rows of the data set ``name`` are."""
        with at("data", name):
            return data_identity(self.spec.data[name])

    def _objective(self, point: CellPoint) -> StudentObjective:
        return StudentObjective(
            point.loss,
            point.loss_parameters,
            point.confidence_weight,
            point.confidence_warmup,
            point.confidence_form,
            self.spec.training.label_clip,
        )

    def _training_inputs(self, data: str, model: str, training: Training) -> dict[str, str]:
        """The rows, and for a last layer the frozen states that it is trained on."""
        inputs = {"prepare": self.prepare(data).key}
        if training.trainable == "last_layer":
            inputs["features"] = self.features(data, model, training).key
        return inputs
