"""The state of a ZeRO optimizer as fragments of named parameters, at any stage.

DeepSpeed concatenates flat parameters and gives each rank a stretch of the result (stages 1 and 2),
or cuts every parameter into as many stretches as there are ranks (stage 3). This file reads the
offsets from DeepSpeed's private attributes and changes none of them. They are those of the version
pinned in constraints.txt; the tests of resuming fail if they change.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from w2s_ray.training.engine import MOMENTS, Fragment, adam_state


def fragments(optimizer: Any, trained: Mapping[str, Tensor], stage: int) -> Iterator[Fragment]:
    """Yields this rank's fragments of the trained parameters: views of the live state.

    Args:
        optimizer: DeepSpeed's optimizer; at stage 0 torch's own.
        trained: parameters by name.
    """
    for name, parameter in trained.items():
        if stage == 0:
            state = adam_state(optimizer, parameter)
            parts = {"master": parameter.detach(), **{m: state[k] for m, k in MOMENTS.items()}}
            yield Fragment(name, 0, {part: t.view(-1) for part, t in parts.items()})
        elif stage == 3:
            yield from _stage_3(optimizer, name, parameter)
        else:
            yield from _stages_1_and_2(optimizer, name, parameter)


def _stages_1_and_2(optimizer: Any, name: str, parameter: Any) -> Iterator[Fragment]:
    """At most one stretch of each parameter is on this rank."""
    mapping = parameter._hp_mapping
    if mapping is not None:
        flat = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
        held = mapping.get_hp_fragment_address()
        start = mapping.lp_fragment_address.start
        yield Fragment(name, start, _parts(optimizer.optimizer, flat, held.start, held.numel))


def _stage_3(optimizer: Any, name: str, parameter: Any) -> Iterator[Fragment]:
    """Rank r holds the r-th of equal stretches; the last ones are padded with zeros."""
    group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = size * torch.distributed.get_rank()
    count = min(size, parameter.ds_numel - start)
    if count <= 0:
        return
    swapped = optimizer._swappable_optimizer_subgroup(group)  # on an NVMe disk
    if swapped:
        optimizer._optimizer_states_and_gradient_swap_in(group)
    flat = optimizer.fp32_partitioned_groups_flat[group]
    yield Fragment(name, start, _parts(optimizer.optimizer, flat, offset, count))
    if swapped:
        optimizer._optimizer_states_and_gradient_swap_out(group)


def _parts(adam: torch.optim.Optimizer, flat: Tensor, start: int, count: int) -> dict[str, Tensor]:
    state = adam_state(adam, flat)
    parts = {"master": flat.detach(), **{m: state[k] for m, k in MOMENTS.items()}}
    return {part: tensor.narrow(0, start, count) for part, tensor in parts.items()}


@torch.no_grad()
def refresh(optimizer: Any, stage: int, updates: int) -> None:
    """Sets Adam's count of updates and copies masters to weights, after fragments were written."""
    adam = optimizer.optimizer if stage else optimizer
    for state in adam.state.values():
        state["step"].fill_(updates)
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        for group in range(len(optimizer.fp16_groups)):
            low = optimizer.fp16_partitioned_groups_flat[group]
            if low is None:  # on an NVMe disk
                optimizer._partitioned_params_swap_out(group)
            else:
                low.data.copy_(optimizer.fp32_partitioned_groups_flat[group].data)
                optimizer._unflatten_partitioned_parameters(group)
        if whole := optimizer.persistent_parameters:
            whole[0].partition(whole)
            whole[0].all_gather(whole)
