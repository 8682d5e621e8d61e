"""Loads a model spec as a backbone: the transformer blocks without a head, ready to train.

The result does not depend on the source (Hub, folder, GGUF file, package, random weights): the
first ``num_layers`` blocks and the final norm, dropout off in every mode, no cache, and attention
that shares prompts if the model passes its test.
No code of a model repository is ever run. The global random state is restored, so that loading a
model cannot change what is drawn afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import UnpicklingError

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from w2s_ray.catalog.architectures import ARCHITECTURES
from w2s_ray.catalog.configs import config_fields, untrained_config
from w2s_ray.catalog.digests import hub_id
from w2s_ray.catalog.shapes import shape
from w2s_ray.errors import InputError
from w2s_ray.models import dimensions, packed_attention
from w2s_ray.models.folders import model_folder
from w2s_ray.models.structure import (
    PRECISIONS,
    blocks_path,
    check_supported,
    keep_first_blocks,
    own_attention,
    prepare_config,
    untrained_module,
)
from w2s_ray.models.tokenizer import first_line, load_tokenizer
from w2s_ray.spec.schema import ModelSpec


@dataclass(frozen=True)
class Backbone:
    """A loaded model.

    Attributes:
        module: returns ``last_hidden_state`` (rows, T, H), after the final norm.
        tokenizer: has a pad token.
        hidden_size: H.
        layers: number of blocks in ``module``.
        shares_prompts: whether the texts of a row are computed with one copy of their prompt;
            otherwise each is computed in a padded row of its own.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    hidden_size: int
    layers: int
    shares_prompts: bool


def load_backbone(
    model: ModelSpec, precision: str, device: torch.device | str | None = None
) -> Backbone:
    """Loads weights and tokenizer.

    Args:
        model: what to load.
        precision: "bf16" or "fp32", of the weights; random weights are drawn in fp32 first.
        device: of the weights; None: the GPU if this process sees one, else the CPU.

    Raises:
        InputError: unreadable or unsupported model, or a Hub that cannot be reached.
    """
    check_dimensions(model)
    dtype = PRECISIONS[precision]
    with quiet(), torch.random.fork_rng(devices=[]):
        module = (
            untrained_backbone(model, dtype) if model.source is None else _pretrained(model, dtype)
        )
        tokenizer = load_tokenizer(model)
    return backbone_of(model, module, tokenizer, device)


def backbone_of(
    model: ModelSpec,
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device | str | None = None,
) -> Backbone:
    """A loaded model, moved to ``device`` and tested; arguments and errors as above."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    module.to(device)  # type: ignore[arg-type]
    width = state_width(module, model.source or model.architecture)
    shares = packed_attention.use_if_exact(module)
    return Backbone(module.train(), tokenizer, width, module.config.num_hidden_layers, shares)


def check_dimensions(model: ModelSpec) -> None:
    """Refuses what plans refuse; measures here, where torch is loaded, what they would measure.

    Raises:
        InputError: an unreadable or unsupported model, or too few blocks.
    """
    fields = config_fields(model)
    if fields is not None and fields["model_type"] not in ARCHITECTURES:
        dimensions.prepare(fields, model.num_layers)
    shape(model)


def state_width(module: PreTrainedModel, model: object) -> int:
    """Width of the last states.

    Raises:
        InputError: a token's state depends on later ones.
        FloatingPointError: the states are not finite.
    """
    try:
        width = packed_attention.causal_width(module)
    except FloatingPointError as error:
        raise FloatingPointError(f"model {model}: {error}") from None
    if width is None:
        raise InputError(
            f"model {model}: architecture {module.config.model_type} is not supported: a token's "
            "state depends on later ones (docs/architectures.md)"
        )
    return width


def untrained_backbone(model: ModelSpec, dtype: torch.dtype) -> PreTrainedModel:
    """Draws all blocks, then drops some, so that the first k are those of the whole model."""
    assert model.architecture is not None
    try:
        config = AutoConfig.for_model(model.architecture, **untrained_config(model))
        prepare_config(config)
        config._attn_implementation = own_attention(config)
        torch.default_generator.manual_seed(model.init_seed)
        module = untrained_module(config)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"model init: random, {model.architecture}: config is refused: {first_line(error)}"
        ) from error
    if model.num_layers is not None:
        blocks = module.get_submodule(blocks_path(module))
        keep_first_blocks(config, model.num_layers)
        assert isinstance(blocks, nn.ModuleList)
        del blocks[model.num_layers :]
    for parameter in module.parameters():  # not .to(dtype): rotary frequencies stay in fp32
        parameter.data = parameter.data.to(dtype)
    return module


def training_config(model: ModelSpec) -> PreTrainedConfig:
    """The configuration of a pretrained model for training: only the kept blocks, dropout off.

    Raises:
        InputError: unreadable or unsupported, or a Hub that cannot be reached.
    """
    assert model.source is not None
    with reading(model), model_folder(model.source, model.revision, weights=False) as folder:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    check_supported(config, model.source)
    prepare_config(config)
    if model.num_layers is not None:
        if model.num_layers > config.num_hidden_layers:
            raise InputError(
                f"model {model.source}: num_layers: {model.num_layers}, "
                f"it has {config.num_hidden_layers}"
            )
        keep_first_blocks(config, model.num_layers)
    return config


def _pretrained(model: ModelSpec, dtype: torch.dtype) -> PreTrainedModel:
    config = training_config(model)
    assert model.source is not None
    with reading(model), model_folder(model.source, model.revision, weights=True) as folder:
        module, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=own_attention(config),
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"model {model.source}: {len(missing)} weights are missing, the first is {missing[0]}"
        )
    loaded: PreTrainedModel = module
    return loaded


@contextmanager
def reading(model: ModelSpec) -> Iterator[None]:
    """Turns what libraries raise for a model that cannot be read into an ``InputError``."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, UnpicklingError) as error:
        on_hub = hub_id(model.source or "") is not None
        what = "not in the local cache, or the Hub did not answer" if on_hub else "not readable"
        raise InputError(f"model {model.source}: {what}: {first_line(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no load reports, which would warn of blocks and heads we drop."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
