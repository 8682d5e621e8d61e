"""The steps that score the models of a cell on the further test sets of its data set."""

from collections.abc import Container, Sequence
from typing import Any, Protocol

from w2s_ray.capacity.execution import Execution
from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.data.sources import data_identity
from w2s_ray.data.test_sets import as_data
from w2s_ray.errors import at
from w2s_ray.plan.configs import FeaturesConfig, PredictConfig, PrepareConfig, TrainConfig
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.layouts import TRAINED, Layouts
from w2s_ray.plan.step import Step
from w2s_ray.plan.step_builder import StepBuilder
from w2s_ray.plan.teachers import features_key
from w2s_ray.spec.expansion import CellPoint
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.store.artifacts import Store


class Builder(StepBuilder, Protocol):
    """What is needed here of ``build.Builder``."""

    model_identities: dict[str, dict[str, Any]]
    layouts: Layouts
    shared: dict[tuple[Any, ...], Step]

    def evaluate(self, model: Step, weak: Step | None = None) -> Step: ...


class TestSteps:
    """Adds the steps of further test sets to a plan; no other key depends on them."""

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._names = {id(model): name for name, model in builder.spec.models.items()}
        self._sets: dict[tuple[str, str], DataSpec] = {}
        self._identities: dict[tuple[str, str], dict[str, Any]] = {}
        for data, spec in builder.spec.data.items():
            for name in spec.tests:
                with at("data", data, "tests", name):
                    self._sets[data, name] = as_data(spec, name)
                    self._identities[data, name] = data_identity(self._sets[data, name])

    def keys(
        self,
        point: CellPoint,
        *,
        members: Sequence[Step],
        weak: Step,
        ceiling: Step,
        student: Step,
    ) -> dict[str, dict[str, str]]:
        """Test set → role → key, as ``Cell.tests``.

        Args:
            members: the weak models.
            weak: the only one of them, or their ensemble.
        """
        return {
            name: self._of_set(point, name, members, weak, ceiling, student)
            for name in self._builder.spec.data[point.data].tests
        }

    def _of_set(
        self,
        point: CellPoint,
        test: str,
        members: Sequence[Step],
        weak: Step,
        ceiling: Step,
        student: Step,
    ) -> dict[str, str]:
        evaluate = self._builder.evaluate
        by_members = [self.predict(point.data, test, model) for model in members]
        by_weak = by_members[0]
        if len(members) > 1:
            by_weak = self._predict_together(point.data, test, weak, by_members)
        by_ceiling = self.predict(point.data, test, ceiling)
        by_student = self.predict(point.data, test, student)
        keys = {
            "test_set": by_student.inputs["test_set"],
            "weak_predict": by_weak.key,
            "weak_evaluate": evaluate(by_weak).key,
            "ceiling_predict": by_ceiling.key,
            "ceiling_evaluate": evaluate(by_ceiling).key,
            "student_predict": by_student.key,
            "student_evaluate": evaluate(by_student, by_weak).key,
        }
        keys |= {**features_key("features", by_student), **features_key("weak_features", by_weak)}
        for number, step in enumerate(by_members if len(members) > 1 else (), start=1):
            role = f"member_{number}"
            keys |= {f"{role}_predict": step.key, **features_key(f"{role}_features", step)}
        return keys

    def test_set(self, data: str, test: str) -> Step:
        """The rows of a further test set."""
        builder, name = self._builder, ("test_set", data, test)
        if name not in builder.shared:
            messages = builder.spec.training.render == "chat_template"
            builder.shared[name] = builder.add(
                KINDS["test_set"],
                f"{data}-{test}",
                PrepareConfig(self._identities[data, test], messages=messages),
                {"prepare": builder.prepare(data).key},
                data=data,
            )
        return builder.shared[name]

    def features(self, data: str, test: str, model: str, trained: Step) -> Step:
        """The frozen states of the test rows, for the heads of a model.

        Args:
            trained: one of the heads.
        """
        builder, training = self._builder, trained.config_as(TrainConfig).training
        block = training.readout_block
        name = ("test_features", data, test, model, block)
        if name not in builder.shared:
            builder.shared[name] = builder.add(
                KINDS["test_features"],
                f"{data}-{test}-{model}" + ("" if block is None else f"-b{block}"),
                FeaturesConfig(
                    builder.model_identities[model],
                    training.precision,
                    training.max_length_tokens,
                    training.rendering,
                    block,
                ),
                {"test_set": self.test_set(data, test).key},
                builder.layouts.inference(model, "features"),
                model=model,
                data=self._sets[data, test],
            )
        return builder.shared[name]

    def predict(self, data: str, test: str, trained: Step) -> Step:
        """The predictions of a trained model, or of a baseline."""
        builder, name = self._builder, ("predict", data, test, trained.key)
        if name not in builder.shared:
            inputs = {"test_set": self.test_set(data, test).key, "model": trained.key}
            model = None if trained.model is None else self._names[id(trained.model)]
            is_head = "features" in trained.inputs
            if model is None:
                inputs |= trained.inputs
            elif is_head:
                inputs["features"] = self.features(data, test, model, trained).key
            builder.shared[name] = builder.add(
                KINDS["predict"],
                f"{test}-by-{trained.kind}-{trained.slug}",
                PredictConfig(),
                inputs,
                self._execution(model, trained, is_head=is_head),
                model=model,
                data=self._sets[data, test],
                second_model=model if trained.kind.name == "reward" else None,
            )
        return builder.shared[name]

    def _execution(self, model: str | None, trained: Step, *, is_head: bool) -> Execution:
        if model is None:
            return Execution()
        kind = "reward" if trained.kind.name == "reward" else "predict"
        return self._builder.layouts.inference(model, None if is_head else kind)

    def _predict_together(
        self, data: str, test: str, ensemble: Step, by_members: Sequence[Step]
    ) -> Step:
        """The predictions of an ensemble, from those of its members."""
        of_member = {step.inputs["model"]: step.key for step in by_members}
        roles = {
            role: of_member[key]
            for role, key in ensemble.inputs.items()
            if role.startswith("weak_")
        }
        return self._builder.add(
            KINDS["predict"],
            f"{test}-by-{ensemble.kind}-{ensemble.slug}",
            PredictConfig(),
            {"test_set": self.test_set(data, test).key, "model": ensemble.key, **roles},
        )


def models_without_weights(plan: Plan, finished: Container[str], store: Store) -> list[str]:
    """Keys of finished models that are to score a further test set and kept no weights."""
    models = dict.fromkeys(
        step.inputs["model"]
        for step in plan.todo(finished).values()
        if step.kind.name == "predict" and step.backbone is not None
    )
    keys = [key for key in models if key in finished and plan.steps[key].kind.name in TRAINED]
    kept = store.file_locations(keys, WEIGHTS) if keys else {}
    return [key for key in keys if key not in kept]
