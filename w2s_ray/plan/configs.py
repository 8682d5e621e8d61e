"""The configuration of each kind of step: what it computes, and nothing of how.

``as_json`` is the form that is hashed into the key, so it is written out: a field added to a class
moves no key until somebody adds it there. A field that came after its kind is left out at the value
that it has in ``ABSENT_MEANS``, so that no older key moves; any other raises the kind's version in
``kinds``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, Self

from w2s_ray.data.rendering import TRANSCRIPT, Rendering
from w2s_ray.objectives.names import LABEL_CLIP
from w2s_ray.spec.fields import Combine, Trainable
from w2s_ray.spec.schema import Form, Lora
from w2s_ray.spec.training import IdenticalPairs

Json = Mapping[str, Any]
Precision = Literal["bf16", "fp32"]
Schedule = Literal["cosine", "constant"]
Solver = Literal["sgd", "newton", "lbfgs"]

ABSENT_MEANS: Mapping[str, Any] = MappingProxyType(
    {
        "identical_pairs": "leave_out",
        "label_temperature": 1.0,
        "messages": False,
        "shuffled_labels": False,
    }
)
"""What an older record means that has no such field; the classes' defaults are the same."""


def _without_absent(values: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not at the value that their absence means."""
    return {n: v for n, v in values.items() if n not in ABSENT_MEANS or v != ABSENT_MEANS[n]}


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
        return _without_absent(values)

    @classmethod
    def from_json(cls, values: Json) -> Self:
        """The inverse of ``as_json``, for a record."""
        lora = values.get("lora")
        rendering = {name: values[name] for name in ("render", "bos") if name in values}
        return cls(
            **{
                **{name: value for name, value in values.items() if name not in rendering},
                "rendering": Rendering(**rendering),
                "adam_betas": tuple(values["adam_betas"]),
                "lora": None if lora is None else Lora.model_validate(lora),
            }
        )

    def batches(self) -> Self:
        """The same training at no particular rate: equal for models that can share batches."""
        return replace(self, learning_rate=0.0)


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
        """JSON values by field, also the columns of ``results``."""
        return {
            "loss": self.loss,
            "loss_parameters": dict(self.loss_parameters),
            "confidence_weight": self.confidence_weight,
            "confidence_warmup": self.confidence_warmup,
            "confidence_form": self.confidence_form,
            "label_clip": self.label_clip,
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
        shuffled: whether the labels are shuffled over the rows before anything else.
    """

    temperature: float = 1.0
    shuffled: bool = False

    @property
    def all_rows_alike(self) -> bool:
        """Whether no row is left out and all weigh the same."""
        return True

    def as_json(self) -> dict[str, Any]:
        """JSON values by the spec's names of the fields."""
        return {"label_temperature": self.temperature, "shuffled_labels": self.shuffled}


@dataclass(frozen=True, slots=True)
class PrepareConfig(Config):
    """``prepare``. ``data`` is the digest of the sources and how rows are made of them.

    ``messages``: the rows hold their conversations as messages too, for chat templates.
    """

    data: Json
    messages: bool = False

    def as_json(self) -> dict[str, Any]:
        return _without_absent({"data": self.data, "messages": self.messages})


@dataclass(frozen=True, slots=True)
class TestSetConfig(PrepareConfig):
    """``test_set``, with the fields of ``prepare``: of the further test set."""

    __test__ = False  # not a test, whatever pytest makes of the name


@dataclass(frozen=True, slots=True)
class FeaturesConfig(Config):
    """``features`` and ``test_features``.

    ``model`` is the identity of the weights (``catalog``).
    """

    model: Json
    precision: Precision
    max_length_tokens: int
    rendering: Rendering = TRANSCRIPT

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "precision": self.precision,
            "max_length_tokens": self.max_length_tokens,
            **self.rendering.as_json(),
        }


@dataclass(frozen=True, slots=True)
class TrainConfig(Config):
    """``weak`` and ``ceiling``. ``model`` is the identity of the weights before training."""

    model: Json
    training: Training
    seed: int

    def as_json(self) -> dict[str, Any]:
        return {"model": self.model, "training": self.training.as_json(), "seed": self.seed}


@dataclass(frozen=True, slots=True)
class StudentConfig(TrainConfig):
    """``student``."""

    objective: StudentObjective
    noise: Noise
    labels: LabelTreatment = LabelTreatment()

    def as_json(self) -> dict[str, Any]:
        return _without_absent(
            {
                "model": self.model,
                "training": self.training.as_json(),
                "seed": self.seed,
                "objective": self.objective.as_json(),
                "noise": self.noise.as_json(),
                **self.labels.as_json(),
            }
        )


@dataclass(frozen=True, slots=True)
class LabelConfig(Config):
    """``label``: the weak model, an input, says everything."""


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
    """``baseline``: what of the texts is read; see ``spec.controls``."""

    reads: str

    def as_json(self) -> dict[str, Any]:
        return {"reads": self.reads}


@dataclass(frozen=True, slots=True)
class EvaluateConfig(Config):
    """``evaluate``. ``label_clip`` bounds the probabilities in logarithms."""

    label_clip: float

    def as_json(self) -> dict[str, Any]:
        return {"label_clip": self.label_clip}
