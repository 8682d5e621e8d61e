"""Which parameters of a model are trained, and their state, which is all a run must store."""

import re
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from w2s_ray.errors import InputError
from w2s_ray.models.accelerator import without_gpu
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.structure import linear_layers, whole_shape
from w2s_ray.spec.schema import Lora


def set_trainable(scorer: Scorer, trainable: str, lora: Lora, seed: int) -> list[nn.Parameter]:
    """Freezes what is not trained; adds adapters to the backbone for "lora".

    Args:
        scorer: changed in place.
        trainable: "full", "last_layer" (the head) or "lora" (adapters and head).
        lora: rank, alpha and the modules that get adapters.
        seed: of the adapters' first factor; the second starts at 0, so outputs are unchanged.

    Returns:
        The parameters to train, in the order of ``scorer.named_parameters()``.

    Raises:
        InputError: the backbone has none of the named modules, or they are experts.
    """
    assert trainable in ("full", "last_layer", "lora")
    scorer.backbone.requires_grad_(trainable == "full")
    if trainable == "lora":
        inject_adapters(scorer.backbone, lora, seed)
    scorer.head.requires_grad_(True)
    return [parameter for parameter in scorer.parameters() if parameter.requires_grad]


def trainable_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the trained parameters by name, on the CPU, in their own dtype."""
    return {
        name: parameter.detach().to("cpu", copy=True).contiguous()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a ``trainable_state``, cast to the module's dtypes.

    Raises:
        ValueError: names or shapes are not those of the trained parameters; call
            ``set_trainable`` first.
    """
    own = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if own.keys() != state.keys():
        differ = sorted(own.keys() ^ state.keys())
        raise ValueError(
            f"state of another model: {len(differ)} names differ, the first is {differ[0]}"
        )
    for name, parameter in own.items():
        if parameter.shape != state[name].shape:
            raise ValueError(
                f"state of another model: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(parameter.shape)}"
            )
        parameter.copy_(state[name])


def inject_adapters(backbone: nn.Module, lora: Lora, seed: int) -> None:
    """Adds adapters in fp32, whatever the backbone's dtype: their updates are small.

    Of a model with experts ``all-linear`` means its linear layers. peft would add the experts,
    stacks of matrices whose adapters can neither be fused nor exported.
    """
    if not torch.cuda.is_available():
        without_gpu()  # peft imports DeepSpeed
    from peft import LoraConfig, inject_adapter_in_model  # takes nearly a second; few steps need it
    from peft.tuners.lora import ParamWrapper

    targets: str | list[str] = lora.target_modules  # a regular expression, or "all-linear"
    if targets == "all-linear" and any(len(whole_shape(p)) == 3 for p in backbone.parameters()):
        targets = linear_layers(backbone)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft handles the transposed weight of GPT-2's Conv1D, and warns that it does.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        torch.default_generator.manual_seed(seed)
        try:
            inject_adapter_in_model(config, backbone)
        except (ValueError, re.error) as error:
            raise InputError(f"training.lora.target_modules: {error}") from error
    for name, module in backbone.named_modules():
        if isinstance(module, ParamWrapper):
            raise InputError(
                f"training.lora.target_modules: given {lora.target_modules!r}, which matches the "
                f"experts {name}, expected linear layers"
            )
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        parameter.requires_grad_("lora_" in name)
