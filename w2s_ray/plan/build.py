"""From a spec to the unique graph of steps.

Every step's configuration is complete: defaults are resolved, models and data are named by the
digest of their content. Two cells that need the same step therefore share it, and a file that
changes on disk changes every key that rests on it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from w2s_ray.catalog.architecture import shape, weights_identity
from w2s_ray.data.sources import data_identity
from w2s_ray.errors import InputError, at
from w2s_ray.plan.graph import Cell, Plan, Step
from w2s_ray.plan.layouts import Placing
from w2s_ray.spec.expansion import CellPoint, expand
from w2s_ray.spec.schema import Spec
from w2s_ray.store.canonical import digest

# A changed default, a new field or a mended fault in a step's code raises its version here:
# old artifacts then no longer answer to the new key.
VERSIONS = {
    "prepare": 1,
    "features": 1,
    "weak": 3,
    "label": 1,
    "ceiling": 3,
    "student": 3,
    "evaluate": 1,
}


def build(spec: Spec) -> Plan:
    """The plan of a spec.

    Raises:
        InputError: unreadable data or model, or two cells that compute the same thing (two names
            for one model, say); both are named. Its ``place`` is the part of the spec at fault.
    """
    return _Builder(spec).plan()


class _Builder:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.steps: dict[str, Step] = {}
        self.models = {name: self.model(name) for name in spec.models}
        self.data = {name: self.rows(name) for name in spec.data}
        self.placing = Placing(spec)
        self.shared: dict[tuple[Any, ...], Step] = {}
        self.trainings: dict[tuple[Any, ...], dict[str, Any]] = {}

    def model(self, name: str) -> dict[str, Any]:
        """What the weights of the model ``name`` are."""
        model, wanted = self.spec.models[name], self.spec.training.max_length_tokens
        with at("models", name):
            known = shape(model)
            if known is not None and wanted > known.max_positions:
                raise InputError(
                    f"training.max_length_tokens: given {wanted}, expected at most "
                    f"{known.max_positions}, the positions of model {name!r}",
                    ("training", "max_length_tokens"),
                )
            return weights_identity(model)

    def rows(self, name: str) -> dict[str, Any]:
        """What the rows of the data set ``name`` are."""
        with at("data", name):
            return data_identity(self.spec.data[name])

    def plan(self) -> Plan:
        cells: list[Cell] = []
        owners: dict[str, CellPoint] = {}
        for point in expand(self.spec):
            cell = self.cell(point)
            other = owners.setdefault(cell.keys["student"], point)
            if other is not point:
                raise InputError(
                    f"grid: two cells compute the same student (key {cell.keys['student']}): "
                    f"{other} and {point}; do two names stand for one model or data set?",
                    ("grid",),
                )
            cells.append(cell)
        return Plan(self.spec.study, self.steps, tuple(cells))

    def cell(self, point: CellPoint) -> Cell:
        training = self.spec.training
        weak_training = self.weak_training(point)
        weak_seed = point.seed if training.weak_seed is None else training.weak_seed
        prepare = self.prepare(point.data)
        weak = self.trained(
            "weak", point.data, point.weak, weak_training, {"seed": weak_seed}, prepare
        )
        strong_training = self.strong_training(point)
        ceiling = self.trained(
            "ceiling", point.data, point.strong, strong_training, {"seed": point.seed}, prepare
        )
        label = self.label(point.data, point.weak, weak, prepare)
        objective = {
            "loss": point.loss,
            "loss_parameters": dict(point.loss_parameters),
            "confidence_weight": point.confidence_weight,
            "confidence_warmup": point.confidence_warmup,
            "confidence_form": point.confidence_form,
            "label_clip": training.label_clip,
        }
        noise = {"ratio": point.noise_ratio, "strength": point.noise_strength}
        student = self.step(
            "student",
            f"{point.data}-{point.strong}-{point.loss}-n{point.noise_ratio:g}"
            f"-c{point.confidence_weight:g}-{point.trainable}-s{point.seed}",
            {
                "model": self.models[point.strong],
                "training": strong_training,
                "objective": objective,
                "noise": noise,
                "seed": point.seed,
            },
            {
                "prepare": prepare.key,
                "label": label.key,
                **self.feature_input(point.data, point.strong, strong_training, prepare),
            },
            self.placing.training(point.data, point.strong, strong_training),
        )
        weak_evaluate = self.evaluate(weak)
        keys = {
            "prepare": prepare.key,
            "weak": weak.key,
            "weak_evaluate": weak_evaluate.key,
            "label": label.key,
            "ceiling": ceiling.key,
            "ceiling_evaluate": self.evaluate(ceiling).key,
            "student": student.key,
            "student_evaluate": self.evaluate(student, weak).key,
        }
        for role, step in (("features", student), ("weak_features", weak)):
            if "features" in step.inputs:
                keys[role] = step.inputs["features"]
        values = {
            "study": self.spec.study,
            "data": point.data,
            "weak": point.weak,
            "strong": point.strong,
            **objective,
            "noise_ratio": point.noise_ratio,
            "noise_strength": point.noise_strength,
            "trainable": point.trainable,
            "learning_rate": strong_training["learning_rate"],
            "epochs": strong_training["epochs"],
            "batch_size": strong_training["batch_size"],
            "seed": point.seed,
        }
        return Cell(values, keys)

    def strong_training(self, point: CellPoint) -> dict[str, Any]:
        """Resolved settings of student and ceiling."""
        return self.training(point.trainable, point.learning_rate, point.epochs, point.batch_size)

    def weak_training(self, point: CellPoint) -> dict[str, Any]:
        """Resolved settings of the weak model: like the student's, unless the spec says else."""
        weak = self.spec.training.weak
        return self.training(
            weak.trainable or point.trainable, weak.learning_rate, weak.epochs, weak.batch_size
        )

    def training(
        self,
        trainable: str,
        learning_rate: float | None,
        epochs: int | None,
        batch_size: int | None,
    ) -> dict[str, Any]:
        known = (trainable, learning_rate, epochs, batch_size)
        if known not in self.trainings:
            training = self.spec.training
            resolved = {
                "trainable": trainable,
                "learning_rate": learning_rate or getattr(training.learning_rate, trainable),
                "epochs": epochs or training.epochs,
                "batch_size": batch_size or training.batch_size,
                "max_length_tokens": training.max_length_tokens,
                "precision": training.precision,
                "schedule": training.schedule,
                "clip_norm": training.clip_norm,
                "adam_betas": list(training.adam_betas),
                "adam_epsilon": training.adam_epsilon,
            }
            if trainable == "last_layer":
                resolved["solver"] = training.solver
            if trainable == "lora":
                resolved["lora"] = training.lora.model_dump(mode="json")
            self.trainings[known] = resolved
        return self.trainings[known]

    def prepare(self, data: str) -> Step:
        return self.once(
            ("prepare", data),
            lambda: self.step(
                "prepare",
                data,
                {"data": self.data[data]},
                {},
                {"data": self.spec.data[data].model_dump(mode="json")},
            ),
        )

    def features(self, data: str, model: str, training: Mapping[str, Any], prepare: Step) -> Step:
        return self.once(
            ("features", data, model),
            lambda: self.step(
                "features",
                f"{data}-{model}",
                {
                    "model": self.models[model],
                    "precision": training["precision"],
                    "max_length_tokens": training["max_length_tokens"],
                },
                {"prepare": prepare.key},
                self.placing.inference(model, "features"),
            ),
        )

    def feature_input(
        self, data: str, model: str, training: Mapping[str, Any], prepare: Step
    ) -> dict[str, str]:
        """The frozen states that a last-layer model is trained on; nothing for the others."""
        if training["trainable"] != "last_layer":
            return {}
        return {"features": self.features(data, model, training, prepare).key}

    def trained(
        self,
        kind: str,
        data: str,
        model: str,
        training: Mapping[str, Any],
        identity: Mapping[str, Any],
        prepare: Step,
    ) -> Step:
        """A model trained on ground truth, always with forward cross-entropy."""
        return self.once(
            (kind, data, model, id(training), identity["seed"]),
            lambda: self.step(
                kind,
                f"{data}-{model}-{training['trainable']}-s{identity['seed']}",
                {"model": self.models[model], "training": training, **identity},
                {
                    "prepare": prepare.key,
                    **self.feature_input(data, model, training, prepare),
                },
                self.placing.training(data, model, training),
            ),
        )

    def label(self, data: str, model: str, weak: Step, prepare: Step) -> Step:
        features = {k: v for k, v in weak.inputs.items() if k == "features"}
        return self.once(
            ("label", weak.key),
            lambda: self.step(
                "label",
                f"{data}-by-{model}-s{weak.config['seed']}",
                {},
                {"prepare": prepare.key, "weak": weak.key, **features},
                self.placing.inference(model, None if features else "label"),
            ),
        )

    def evaluate(self, model: Step, weak: Step | None = None) -> Step:
        reference = {"weak": weak.key} if weak is not None else {}
        return self.once(
            ("evaluate", model.key, *reference.values()),
            lambda: self.step(
                "evaluate",
                f"{model.kind}-{model.slug}",
                {"label_clip": self.spec.training.label_clip},
                {"model": model.key, **reference},
                {},
            ),
        )

    def once(self, name: tuple[Any, ...], make: Callable[[], Step]) -> Step:
        """The step of this name, built at its first use; most cells share most steps."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    def step(
        self,
        kind: str,
        slug: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        execution: Mapping[str, Any],
    ) -> Step:
        version = VERSIONS[kind]
        key = digest({"kind": kind, "version": version, "config": config, "inputs": inputs})
        return self.steps.setdefault(key, Step(kind, key, slug, version, config, inputs, execution))
