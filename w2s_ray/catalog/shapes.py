"""Dimensions and parameter counts of a model, from its configuration alone.

Plans, costs and memory are computed before anything is spent, on machines that may have no torch.
The architectures of ``ARCHITECTURES`` have formulas, which the tests compare with the real models
of transformers; every other one is measured on a model without values (``measured``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from w2s_ray.catalog.architectures import ARCHITECTURES, Architecture
from w2s_ray.catalog.configs import config_fields
from w2s_ray.catalog.measured import measured
from w2s_ray.catalog.sizes import check_parameters, check_sizes
from w2s_ray.errors import InputError

if TYPE_CHECKING:
    from w2s_ray.spec.schema import ModelSpec


UNLIMITED = 2**31 - 1
_REQUIRED = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


class LinearSize(NamedTuple):
    """Numbers that a linear layer reads and gives per token."""

    inputs: int
    outputs: int


class Saved(NamedTuple):
    """What autograd keeps of a block for each token, on average over the blocks.

    Attributes:
        precision: bf16 or fp32, of the model.
        device: gpu or cpu, whose attention is used.
        fixed: bytes.
        per_row_token: bytes more for each token of the row.
    """

    precision: str
    device: str
    fixed: int
    per_row_token: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What no formula gives: numbers read off a model without values (``models.dimensions``).

    Attributes:
        embeddings: parameters of all embeddings.
        block: parameters of the largest block.
        matrices: parameters that a token is multiplied with; of experts, those of its own.
        linear_widths: inputs and outputs of all linear layers, added up.
        saved: for each precision and device.
    """

    embeddings: int
    block: int
    matrices: int
    linear_widths: int
    saved: tuple[Saved, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A backbone's dimensions.

    Attributes:
        layers: number of blocks that are kept.
        hidden_size: width of the states that the head reads.
        vocab_size: rows of the embedding.
        parameters: of the embeddings, the kept blocks and the final norm; no LM head.
        architecture: ``model_type`` of its configuration.
        max_positions: longest input in tokens; ``UNLIMITED`` where positions have no end.
        intermediate_size: inner width of a feed-forward layer.
        heads, kv_heads, head_width: of attention; queries are heads × head_width wide.
        vectors: how many of the parameters are in norms and biases.
        measured: None for an architecture with formulas.
    """

    layers: int
    hidden_size: int
    vocab_size: int
    parameters: int
    architecture: str
    max_positions: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_width: int
    vectors: int
    measured: Measured | None = None

    @property
    def family(self) -> Architecture:
        """What holds for every model of an architecture with formulas."""
        return ARCHITECTURES[self.architecture]

    @property
    def queries(self) -> int:
        """Width of the queries of a token, all heads together."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """Width of the keys of a token, and of its values."""
        return self.kv_heads * self.head_width

    @property
    def embeddings(self) -> int:
        """Parameters of the token embedding and of learned positions."""
        if self.measured is not None:
            return self.measured.embeddings
        positions = self.max_positions if self.family.learned_positions else 0
        return (self.vocab_size + positions) * self.hidden_size

    @property
    def block(self) -> int:
        """Parameters of one block, the largest."""
        if self.measured is not None:
            return self.measured.block
        final_norm = self.family.norm_vectors * self.hidden_size
        return (self.parameters - self.embeddings - final_norm) // self.layers

    @property
    def matrices(self) -> int:
        """Parameters that a token is multiplied with: not embeddings, nor the experts of others."""
        if self.measured is not None:
            return self.measured.matrices
        return self.parameters - self.embeddings

    @property
    def linear_widths(self) -> int:
        """Inputs and outputs of all linear layers, added up."""
        if self.measured is not None:
            return self.measured.linear_widths
        return self.layers * sum(size.inputs + size.outputs for size in self.linear_layers)

    @property
    def linear_layers(self) -> tuple[LinearSize, ...]:
        """The linear layers of one block, of an architecture with formulas."""
        hidden, inner, queries, keys = (
            self.hidden_size,
            self.intermediate_size,
            self.queries,
            self.keys,
        )
        projections = [LinearSize(hidden, width) for width in (queries, keys, keys)]
        if self.family.fused_qkv:
            projections = [LinearSize(hidden, queries + 2 * keys)]
        ups = [LinearSize(hidden, inner)] * (2 if self.family.gated_mlp else 1)
        return (*projections, LinearSize(queries, hidden), *ups, LinearSize(inner, hidden))


def shape(model: "ModelSpec") -> Shape | None:
    """The dimensions of the model, cut to its first ``num_layers`` blocks.

    Returns:
        None for a Hub model that is neither in the local cache nor among the published ones.

    Raises:
        InputError: the model cannot be read, is not supported, or has fewer blocks than asked for.
    """
    name = model.source or f"init: random, {model.architecture}"
    config = config_fields(model)
    if config is None:
        return None
    has_formulas = config["model_type"] in ARCHITECTURES
    check_sizes(config, name, strict=has_formulas)
    if not has_formulas:
        return shape_from(measured(config, model.num_layers, name))
    try:
        if (layers := config["num_hidden_layers"]) is None:
            raise KeyError("num_hidden_layers")
        if model.num_layers is not None and model.num_layers > layers:
            raise InputError(f"model {name}: num_layers: {model.num_layers}, it has {layers}")
        made = shape_of(config, model.num_layers)
        check_parameters(made.parameters, name)
        return made
    except KeyError as error:
        raise InputError(f"model {name}: its configuration has no {error.args[0]}") from error


def shape_of(fields: Mapping[str, Any], layers: int | None = None) -> Shape:
    """The dimensions that the fields of a Hugging Face ``config.json`` give.

    Args:
        fields: by the family's own names or the common ones; ``model_type`` is among them.
        layers: number of blocks that are kept; None: all.

    Raises:
        KeyError: a required field is missing.
    """
    family = ARCHITECTURES[fields["model_type"]]
    config = family.common_names(fields)
    for field in _REQUIRED:
        if config.get(field) is None:
            raise KeyError(field)
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    blank = Shape(
        layers=layers or int(config["num_hidden_layers"]),
        hidden_size=hidden,
        vocab_size=int(config["vocab_size"]),
        parameters=0,
        architecture=family.name,
        max_positions=int(config["max_position_embeddings"]),
        intermediate_size=int(config.get("intermediate_size") or 4 * hidden),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_width=int(config.get("head_dim") or hidden // heads),
        vectors=0,
    )
    vectors = _vectors(blank, config)
    matrices = blank.layers * sum(size.inputs * size.outputs for size in blank.linear_layers)
    return replace(blank, parameters=blank.embeddings + matrices + vectors, vectors=vectors)


def shape_from(numbers: Mapping[str, Any]) -> Shape:
    """The shape whose fields, as JSON, are ``numbers``."""
    own = dict(numbers["measured"])
    saved = tuple(Saved(*entry) for entry in own.pop("saved"))
    return Shape(**{**numbers, "measured": Measured(**own, saved=saved)})


def _vectors(shape: Shape, config: Mapping[str, Any]) -> int:
    """Parameters in norms and biases: two norms per block and the final one."""
    family, hidden = shape.family, shape.hidden_size
    norm = family.norm_vectors * hidden
    block = 2 * norm
    if family.has_bias(family.qkv_bias, config):
        block += shape.queries + 2 * shape.keys
    if family.has_bias(family.attention_output_bias, config):
        block += hidden
    if family.has_bias(family.mlp_bias, config):
        block += (2 if family.gated_mlp else 1) * shape.intermediate_size + hidden
    return shape.layers * block + norm
