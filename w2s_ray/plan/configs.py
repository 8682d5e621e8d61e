"""The configuration of each kind of step: what it computes, and nothing of how.

``as_json`` is the form that is hashed into the key, so it is written out: a field added to a class
moves no key until somebody adds it there. A field that came after its kind is left out at the value
that it has in ``absent``, so that no older key moves; any other raises the kind's version in
``kinds``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from w2s_ray.data.rendering import TRANSCRIPT, Rendering
from w2s_ray.objectives.names import LABEL_CLIP
from w2s_ray.plan.absent import without_absent
from w2s_ray.spec.fields import Combine, Trainable
from w2s_ray.spec.grid import Form
from w2s_ray.spec.labels import ExampleWeight, FilterOrNone, Relabel
from w2s_ray.spec.schema import Lora
from w2s_ray.spec.selection import Rule
from w2s_ray.spec.training import IdenticalPairs

Json = Mapping[str, Any]
Precision = Literal["bf16", "fp32"]
Schedule = Literal["cosine", "constant"]
Solver = Literal["sgd", "newton", "lbfgs"]
Calibrate = Literal["none", "temperature"]
Judge = Literal["probe", "knn"]
JUDGES: tuple[Judge, ...] = ("probe", "knn")


class Config:
    """Base of all configurations. One without fields computes from its inputs alone."""

    __slots__ = ()

    def as_json(self) -> dict[str, Any]:
        """JSON values: the part of the step's key that is not its inputs."""
        return {}


@dataclass(frozen=True, slots=True)
class Training:
    """How one model is trained.

    Attributes:
        batch_size: rows of one optimizer step, over all workers.
        max_length_tokens: tokens of one text; longer ones lose their beginning.
        clip_norm: largest gradient norm; None: no limit.
        solver: of a last layer; None for the others.
        lora: adapters where ``trainable`` is "lora"; None for the others.
        rendering: how texts are made of rows.
        identical_pairs: whether pairs whose answers are the same tokens stay in batches.
        evaluations: optimizer steps that are evaluated, log-spaced, the last among them.
        weight_decay: decoupled from the gradient, as in AdamW; of every trained parameter.
        readout_block: of a last layer: the block after which it reads; None: the last.
    """

    trainable: Trainable
    learning_rate: float
    epochs: int
    batch_size: int
    max_length_tokens: int
    precision: Precision
    schedule: Schedule
    clip_norm: float | None
    adam_betas: tuple[float, float]
    adam_epsilon: float
    solver: Solver | None = None
    lora: Lora | None = None
    rendering: Rendering = TRANSCRIPT
    identical_pairs: IdenticalPairs = "leave_out"
    evaluations: int = 1
    weight_decay: float = 0.0
    readout_block: int | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values by field; a field that does not apply is left out."""
        values: dict[str, Any] = {
            "trainable": self.trainable,
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "max_length_tokens": self.max_length_tokens,
            "precision": self.precision,
            "schedule": self.schedule,
            "clip_norm": self.clip_norm,
            "adam_betas": list(self.adam_betas),
            "adam_epsilon": self.adam_epsilon,
        }
        if self.solver is not None:
            values["solver"] = self.solver
        if self.lora is not None:
            values["lora"] = self.lora.model_dump(mode="json")
        values |= self.rendering.as_json()
        values["identical_pairs"] = self.identical_pairs
        values["evaluations"] = self.evaluations
        values["weight_decay"] = self.weight_decay
        values["readout_block"] = self.readout_block
        return without_absent(values)

    @classmethod
    def from_json(cls, values: Json) -> Self:
        """The inverse of ``as_json``, for a record."""
        lora = values.get("lora")
        return cls(
            **{
                **{name: value for name, value in values.items() if name not in Rendering.FIELDS},
                "rendering": Rendering.from_json(values),
                "adam_betas": tuple(values["adam_betas"]),
                "lora": None if lora is None else Lora.model_validate(lora),
            }
        )

    def batches(self) -> Self:
        """The same training at no particular rate: equal for models that can share batches."""
        return replace(self, learning_rate=0.0, weight_decay=0.0)


@dataclass(frozen=True, slots=True)
class StudentObjective:
    """A student's loss on its soft labels; see ``objectives.objective.Objective``."""

    loss: str
    loss_parameters: tuple[tuple[str, float], ...] = ()
    confidence_weight: float = 0.0
    confidence_warmup: float = 0.2
    confidence_form: Form = "target"
    label_clip: float = LABEL_CLIP

    def as_json(self) -> dict[str, Any]:
        """JSON values by field, also the columns of ``results``.

        Where the weak label, and not the one it is mixed into, decides the case of a loss, that is
        said: earlier students had another objective there.
        """
        mixed = self.confidence_weight > 0.0 and self.confidence_form == "target"
        decides = mixed and self.loss == "confidence_adaptive_ce"
        return {
            "loss": self.loss,
            "loss_parameters": dict(self.loss_parameters),
            "confidence_weight": self.confidence_weight,
            "confidence_warmup": self.confidence_warmup,
            "confidence_form": self.confidence_form,
            "label_clip": self.label_clip,
            **({"decided_by": "weak label"} if decides else {}),
        }


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise on the weak labels; see ``objectives.noise``."""

    ratio: float = 0.0
    strength: float = -1.0

    def as_json(self) -> dict[str, Any]:
        return {"ratio": self.ratio, "strength": self.strength}


@dataclass(frozen=True, slots=True)
class LabelTreatment:
    """What is done to the weak labels that a student learns from, before and after noise.

    Attributes:
        temperature: of the labels, before noise; see ``objectives.temperature``.
        relabel: what replaces the labels after noise; see ``steps.opinions``.
        filter_by: what makes a label good; none: no filter.
        keep: share of the rows that the filter keeps.
        example_weight: what weighs a row's loss; see ``objectives.label_rows``.
        neighbours: k of knn.
        shuffled: whether the labels are shuffled over the rows before anything else.
    """

    temperature: float = 1.0
    relabel: Relabel = "none"
    filter_by: FilterOrNone = "none"
    keep: float = 1.0
    example_weight: ExampleWeight = "none"
    neighbours: int = 20
    shuffled: bool = False

    @property
    def all_rows_alike(self) -> bool:
        """Whether no row is left out and all weigh the same."""
        return self.filter_by == "none" and self.example_weight == "none"

    @property
    def depends_on_rows(self) -> bool:
        """Whether a row's label or weight depends on which other rows there are."""
        return self.relabel != "none" or not self.all_rows_alike

    @property
    def judges(self) -> frozenset[Judge]:
        """The judges that read features of the strong model."""
        asked = {self.relabel, self.filter_by}
        return frozenset(judge for judge in JUDGES if judge in asked)

    def as_json(self) -> dict[str, Any]:
        """JSON values by the spec's names of the fields."""
        kept = None if self.filter_by == "none" else {"keep": self.keep, "by": self.filter_by}
        values = {
            "label_temperature": self.temperature,
            "relabel": self.relabel,
            "label_filter": kept,
            "example_weight": self.example_weight,
            "shuffled_labels": self.shuffled,
        }
        if "knn" in self.judges:
            values["label_neighbours"] = self.neighbours
        return values


@dataclass(frozen=True, slots=True)
class PrepareConfig(Config):
    """``prepare`` and ``test_set``.

    ``data`` is the digest of the sources and how rows are made of them.
    ``messages``: the rows hold their conversations as messages too, for chat templates.
    """

    data: Json
    messages: bool = False

    def as_json(self) -> dict[str, Any]:
        return without_absent({"data": self.data, "messages": self.messages})


@dataclass(frozen=True, slots=True)
class FeaturesConfig(Config):
    """``features``, ``test_features`` and ``untrained``.

    Attributes:
        model: the identity of the weights (``catalog``).
        readout_block: whose states are kept, after the model's final norm; None: the last.
    """

    model: Json
    precision: Precision
    max_length_tokens: int
    rendering: Rendering = TRANSCRIPT
    readout_block: int | None = None

    def as_json(self) -> dict[str, Any]:
        return without_absent(
            {
                "model": self.model,
                "precision": self.precision,
                "max_length_tokens": self.max_length_tokens,
                **self.rendering.as_json(),
                "readout_block": self.readout_block,
            }
        )

    @classmethod
    def from_json(cls, values: Json) -> Self:
        """The inverse of ``as_json``, for a record."""
        fields = ("model", "precision", "max_length_tokens", "readout_block")
        of_record = {name: values[name] for name in fields if name in values}
        return cls(**of_record, rendering=Rendering.from_json(values))


@dataclass(frozen=True, slots=True)
class TrainConfig(Config):
    """``weak`` and ``ceiling``. ``model`` is the identity of the weights before training.

    Attributes:
        validation_rows: rows of the split ``weak`` that no student learns from, on which this model
            is scored while it trains.
    """

    model: Json
    training: Training
    seed: int
    validation_rows: int = field(default=0, kw_only=True)

    def as_json(self) -> dict[str, Any]:
        return without_absent(
            {
                "model": self.model,
                "training": self.training.as_json(),
                "seed": self.seed,
                "validation_rows": self.validation_rows,
            }
        )


@dataclass(frozen=True, slots=True)
class WeakConfig(TrainConfig):
    """``weak``. ``held_out``: share of the rows that it does not train on, to calibrate it."""

    held_out: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return without_absent({**TrainConfig.as_json(self), "held_out": self.held_out})


@dataclass(frozen=True, slots=True)
class RewardConfig(TrainConfig):
    """``reward``. ``beta``: β of DPO and of the implicit rewards."""

    beta: float

    def as_json(self) -> dict[str, Any]:
        return {**TrainConfig.as_json(self), "beta": self.beta}


@dataclass(frozen=True, slots=True)
class StudentConfig(TrainConfig):
    """``student``.

    Attributes:
        train_rows: number of rows that it learns from; None: all.
        anchor: λ of the penalty λ/2 ‖θ - θ₀‖² on its distance from its initial weights.
    """

    objective: StudentObjective
    noise: Noise
    labels: LabelTreatment = LabelTreatment()
    train_rows: int | None = None
    anchor: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return without_absent(
            {
                "model": self.model,
                "training": self.training.as_json(),
                "seed": self.seed,
                "objective": self.objective.as_json(),
                "noise": self.noise.as_json(),
                "validation_rows": self.validation_rows,
                **self.labels.as_json(),
                "train_rows": self.train_rows,
                "anchor": self.anchor,
            }
        )


@dataclass(frozen=True, slots=True)
class LabelConfig(Config):
    """``label``: the weak model, an input, and whether its logits are calibrated."""

    calibrate: Calibrate = "none"

    def as_json(self) -> dict[str, Any]:
        return without_absent({"calibrate": self.calibrate})


@dataclass(frozen=True, slots=True)
class PredictConfig(Config):
    """``predict``: the model and the test set, its inputs, say everything."""


@dataclass(frozen=True, slots=True)
class EnsembleConfig(Config):
    """``ensemble``: how its members, the inputs, are combined; see ``objectives.ensembles``."""

    combine: Combine

    def as_json(self) -> dict[str, Any]:
        return {"combine": self.combine}


@dataclass(frozen=True, slots=True)
class BaselineConfig(Config):
    """``baseline``: what of the texts is read; see ``spec.controls``.

    Attributes:
        validation_rows: rows of the split ``weak`` that it does not learn from.
    """

    reads: str
    validation_rows: int = 0

    def as_json(self) -> dict[str, Any]:
        return without_absent({"reads": self.reads, "validation_rows": self.validation_rows})


@dataclass(frozen=True, slots=True)
class EvaluateConfig(Config):
    """``evaluate``. ``label_clip`` bounds the probabilities in logarithms.

    Attributes:
        step_by: the rule that chooses the evaluated step whose predictions are scored; None: the
            last step.
    """

    label_clip: float
    step_by: Rule | None = field(default=None, kw_only=True)

    def as_json(self) -> dict[str, Any]:
        return without_absent({"label_clip": self.label_clip, "step_by": self.step_by})
