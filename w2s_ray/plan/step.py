"""A step: one unit of work with one artifact, and what its kind says of it.

A step's *identity* is what it computes: kind, version, configuration, keys of its inputs. How it is
computed (``execution``) and where its sources are (``model``, ``data``) are carried beside it and
stay out of the key, so that a study finished on a laptop is finished on a cluster too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from w2s_ray.capacity.execution import Execution
from w2s_ray.masking import masked_value
from w2s_ray.plan.configs import Config
from w2s_ray.spec.inputs import DataSpec, ModelSpec
from w2s_ray.spec.prompts import Prompts
from w2s_ray.store.canonical import digest
from w2s_ray.store.identity import Identity

C = TypeVar("C", bound=Config)


class Fusion(NamedTuple):
    """Ready steps with equal fusions are computed together, by one process.

    Attributes:
        module: dotted path of the module whose ``run_together`` computes them.
        shared: what the steps have in common.
        limit: largest number of steps in a group; None: any.
    """

    module: str
    shared: tuple[str, ...] = ()
    limit: int | None = None


def never_fused(step: Step) -> Fusion | None:
    """The rule of kinds whose steps run one by one."""
    return None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of step: all that planning, pricing, scheduling and running need to know of it.

    Attributes:
        version: part of the key. A change of what the kind's code computes raises it, and old
            artifacts are then not found any more.
        module: dotted path of the module whose ``run`` computes one step.
        trained_on: split whose rows train the model; None: nothing is trained.
        scored: splits whose rows pass the backbone once, without gradients.
        needs_torch: whether the process that runs it loads torch.
        is_end: whether results are read from its artifacts; if not, it runs only for steps that
            need it.
        plural: name of several such steps, for people.
        fusion: rule that finds the steps to be fused with one; see ``fusion``.
    """

    name: str
    version: int
    module: str
    trained_on: str | None = None
    scored: tuple[str, ...] = ()
    needs_torch: bool = True
    is_end: bool = True
    plural: str = "steps"
    fusion: Callable[[Step], Fusion | None] = never_fused

    @property
    def trains(self) -> bool:
        return self.trained_on is not None

    def __str__(self) -> str:
        return self.name


def key_of(kind: Kind, config: Config, inputs: Mapping[str, str]) -> str:
    """The key of a step: the digest of what it computes."""
    return digest(
        {
            "kind": kind.name,
            "version": kind.version,
            "config": config.as_json(),
            "inputs": inputs,
        }
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One unit of work with one artifact.

    Attributes:
        key: digest of the identity.
        slug: names the artifact's folder for people; identifies nothing.
        config: the whole resolved science configuration, of the kind's own class.
        inputs: role → key of the step that provides it.
        execution: how it is run.
        model: the model that the step starts from; None: it needs none.
        data: the data set that its rows come from; None: it reads predictions alone.
        model_identity: what the weights of ``model`` were when the key was made.
        prompts: what is answered, in a study of generated text.
        second_model: another model that the step runs beside ``model``, or whose tokens it needs.
    """

    kind: Kind
    key: str
    slug: str
    config: Config
    inputs: Mapping[str, str]
    execution: Execution = field(default_factory=Execution)
    model: ModelSpec | None = None
    data: DataSpec | None = None
    model_identity: Mapping[str, Any] | None = None
    prompts: Prompts | None = None
    second_model: ModelSpec | None = None

    def config_as(self, kind_of_config: type[C]) -> C:
        """The configuration, which must be of the class that the step's kind has.

        Raises:
            TypeError: it is of another class.
        """
        if not isinstance(self.config, kind_of_config):
            name = f"{self.slug}-{self.key}"
            raise TypeError(f"the {self.kind} step {name} has no {kind_of_config.__name__}")
        return self.config

    @property
    def identity(self) -> Identity:
        """What the store must know of the step."""
        return Identity(
            self.kind.name,
            self.key,
            self.slug,
            self.kind.version,
            self.config.as_json(),
            self.inputs,
        )

    @property
    def fusion(self) -> Fusion | None:
        """The group that the step may be computed with; None: it runs alone."""
        return self.kind.fusion(self)

    @property
    def order(self) -> str:
        """Sorts the steps of a fusion: their keys, or those of the models that they read.

        Each group, and the bundle that it is committed as, then has a range of keys, and whoever
        reads all steps in the order of keys reads one bundle after the other.
        """
        return self.inputs.get("model", self.key)

    @property
    def claim(self) -> str:
        """The name that a process holds while it works on the step.

        Steps that are fused without limit share sixteen names, by the first digit of ``order``, so
        that a group of a thousand needs one or two.
        """
        fusion = self.fusion
        if fusion is None or fusion.limit is not None:
            return self.key
        return digest([fusion.module, *fusion.shared, self.order[0]])

    @property
    def backbone(self) -> ModelSpec | None:
        """The model whose backbone the step runs; None: it runs none (a head on features)."""
        return None if "features" in self.inputs else self.model

    @property
    def saves_checkpoints(self) -> bool:
        """Whether it trains in a loop that saves its state, at least where it runs by itself."""
        return self.kind.trains and self.backbone is not None

    @property
    def scores_trained_rows(self) -> bool:
        """Whether the trained model scores the rows that students learn from."""
        of_interest = self.kind.trained_on == "weak" or self.kind.name == "ceiling"
        return of_interest and self.execution.train_predictions

    def described_execution(self) -> dict[str, Any]:
        """How the step is run and where its sources are, as JSON values without secrets."""
        if self.model is not None:
            model = masked_value(self.model.model_dump(mode="json"))
            return {**self.execution.as_json(), "model": model}
        return (
            {} if self.data is None else {"data": masked_value(self.data.model_dump(mode="json"))}
        )
