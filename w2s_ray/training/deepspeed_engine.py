"""The engine for several processes: DeepSpeed ZeRO 0 to 3 behind the protocol of ``engine.py``.

It computes the numbers of ``TorchEngine``: the same Adam (handed to DeepSpeed, so its CPUAdam is
not compiled), fp32 master weights, and gradients summed in fp32 over micro-batches and ranks.
DeepSpeed averages over ranks where a sum is wanted, so the loss is multiplied by the world size.

DeepSpeed's own ``bf16`` mode stays off: it would cast the fp32 head as well and sum gradients in
bf16. Without it parameters keep their dtypes, and ZeRO 1 to 3 keep fp32 masters of bf16 parameters.
ZeRO 0 has no masters, so a bf16 model configured for ZeRO 0 trains with ZeRO 1, which shards only
the optimizer. Two details need care; ``test_deepspeed_engine.py`` checks both:

* ZeRO 1 and 2 take the dtype of their gradient buffers from the first parameter group.
* ZeRO 3 needs one dtype for all trained parameters, so an fp32 head is stored in bf16 with an fp32
  residual (``split_precision``). It still computes with its fp32 master; only its gradient is
  rounded to bf16.
"""

import gc
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from w2s_ray.capacity.execution import Execution
from w2s_ray.models.accelerator import without_gpu
from w2s_ray.training import zero_state
from w2s_ray.training.engine import Adam, Fragment
from w2s_ray.training.split_precision import split_precision
from w2s_ray.training.zero_config import Zero, deepspeed_config

if not torch.cuda.is_available():
    without_gpu()
import deepspeed
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_local_fp32_param,
    safe_set_local_fp32_param,
)

deepspeed.utils.logger.setLevel(logging.ERROR)
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
if deepspeed.get_accelerator().device_name() == "cpu":
    # An all-reduce for inference, never called here, that takes more than a minute to compile.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def partition_module(zero: Zero, module: nn.Module) -> None:
    """Shards a module's own parameters as ZeRO 3 does, taking their values from rank 0.

    Every rank calls this for one module after another. The values on other ranks are ignored, so
    only rank 0 needs to read the weights.
    """
    join_group()
    config = deepspeed_config(zero)
    config["zero_optimization"]["memory_efficient_linear"] = False  # the engine switches it on
    deepspeed.zero.Init(module=module, config_dict_or_path=config)


def engine_options(execution: Execution, name: str) -> dict[str, Any]:
    """Arguments of ``fit`` for one process of a group that trains the run ``name``."""
    zero = Zero.of(execution, name)
    return {
        "make_engine": partial(DeepSpeedEngine, zero=zero),
        "partition": partial(partition_module, zero) if zero.stage == 3 else None,
    }


def join_group() -> None:
    """Joins the process group described by the environment, unless this process is in one already.

    If the environment describes none, the process forms a group of one.
    """
    if dist.is_initialized():
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed reads it
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)


class DeepSpeedEngine:
    """One rank of a process group that trains one model; every rank makes the same calls.

    Args:
        scorer: module that maps a batch's inputs to logits, the same on every rank. DeepSpeed moves
            it to the rank's device and rearranges its parameters: use it only through the engine.
        parameters: those to be trained, i.e. those of ``scorer`` that require a gradient.
        adam: optimizer settings.
        zero: what is sharded and offloaded.

    The process joins the group described by its environment (RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT) unless it is in one already.
    """

    def __init__(
        self,
        scorer: nn.Module,
        parameters: Sequence[nn.Parameter],
        adam: Adam,
        *,
        zero: Zero,
    ) -> None:
        if adam.anchor:  # refused by the plan: sharded masters would need sharded copies
            raise ValueError(f"anchor is {adam.anchor}, expected 0 in a group")
        join_group()
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._all = dict(scorer.named_parameters())
        self._trained = {n: p for n, p in self._all.items() if p.requires_grad}
        assert {id(p) for p in self._trained.values()} == {id(p) for p in parameters}
        full = [p for p in parameters if p.dtype == torch.float32]
        low = [p for p in parameters if p.dtype != torch.float32]
        lowest_stage = 1 if low or zero.offload != "none" else 0
        self._stage = max(zero.stage, lowest_stage)
        self._folder = zero.folder
        self.sharded = self._stage > 0
        splits = low and self._stage == 3
        self._residuals = split_precision(scorer, full, low[0].dtype) if splits else {}
        # The first group sets the dtype of the buffers. ZeRO 2 sends gradients in it, so it must be
        # fp32; ZeRO 1 keeps separate fp32 sums of gradients only if it is bf16.
        groups = [full, low] if self._stage == 2 else [low, full]
        self._linear = nn.functional.linear  # ZeRO 3 replaces it in the whole process
        self._engine, *_ = deepspeed.initialize(
            model=scorer,
            optimizer=torch.optim.Adam(
                [{"params": group} for group in groups if group],
                lr=0.0,
                fused=True,
                **adam.arguments(),
            ),
            config=deepspeed_config(
                replace(zero, stage=self._stage),
                trained=sum(_size(p) for p in self._trained.values()),
                clip=adam.clip_norm,
                largest_small=max(
                    (_size(p) for p in self._all.values() if _dimensions(p) < 2), default=0
                ),
            ),
        )
        self._complete_masters()

    def _complete_masters(self) -> None:
        """Adds the residuals to the masters, which DeepSpeed copied from the stored weights."""
        for parameter, residual in self._residuals.items():
            master = safe_get_local_fp32_param(parameter)
            size = master.numel()
            flat = residual.value.flatten()
            padded = nn.functional.pad(flat, (0, size * self.world - flat.numel()))
            safe_set_local_fp32_param(parameter, master + padded[self.rank * size :][:size])

    def _update_residuals(self) -> None:
        for parameter, residual in self._residuals.items():
            residual.update(safe_get_full_fp32_param(parameter))

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(b, K) float32 logits; under ZeRO 3 every rank must make the same number of calls."""
        on_device = {name: tensor.to(self._engine.device) for name, tensor in inputs.items()}
        logits: Tensor = self._engine(**on_device)
        return logits

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """As ``Engine.backward``; the last call of a step reduces the gradient over ranks."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.world)

    def step(self, learning_rate: float) -> float:
        """As ``Engine.step``; the norm is that of the gradient summed over all ranks.

        Raises:
            RuntimeError: ``backward`` was not called with ``last`` since the previous step.
            FloatingPointError: the gradient is not finite; DeepSpeed would skip the update.
        """
        if not self._engine.is_gradient_accumulation_boundary():
            raise RuntimeError("step before the last micro-batch")
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._stage == 0:  # plain Adam: DeepSpeed clips without returning the norm
            gradients = [p.grad for p in self._trained.values() if p.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
            self._engine.step()
        else:
            self._engine.step()
            norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {norm}")
        self._update_residuals()
        return norm

    def gather(self, values: Tensor) -> Tensor:
        """As ``Engine.gather``; ``values`` must have the same shape on every rank."""
        local = values.to(self._engine.device).contiguous()
        parts = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(parts, local)
        return torch.cat(parts).to(values.device)

    def whole(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """As ``Engine.whole``."""
        for name in names:
            parameter = self._all[name]
            if self._stage == 0 or (name not in self._trained and self._stage < 3):
                yield name, self._copy(parameter)
            elif name in self._trained:
                yield name, self._copy(safe_get_full_fp32_param(parameter))
            else:
                with deepspeed.zero.GatheredParameters([parameter]):
                    whole = self._copy(parameter)
                yield name, whole

    def fragments(self) -> Iterator[Fragment]:
        """As ``Engine.fragments``."""
        return zero_state.fragments(self._optimizer, self._trained, self._stage)

    def restored(self, updates: int) -> None:
        """As ``Engine.restored``."""
        zero_state.refresh(self._optimizer, self._stage, updates)
        self._update_residuals()

    @property
    def _optimizer(self) -> Any:
        return self._engine.optimizer if self._stage else self._engine.basic_optimizer

    def _copy(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to("cpu", copy=True) if self.rank == 0 else torch.empty(0)

    def close(self) -> None:
        """Frees DeepSpeed's memory; engine and scorer cannot be used again.

        The process group stays.
        """
        self._engine.destroy()
        nn.functional.linear = self._linear
        # Hooks on the scorer and a cache in DeepSpeed keep its objects alive: drop their tensors.
        for optimizer in (self._engine.optimizer, self._engine.basic_optimizer):
            vars(optimizer).clear()
        if self._stage == 3:
            for parameter in self._engine.module.parameters():
                parameter.ds_tensor.data = parameter.data = parameter.data.new_empty(0)
        del self._engine, self._trained, self._all, self._residuals
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        gc.collect()
        torch.cuda.empty_cache()


def _size(parameter: Tensor) -> int:
    """Elements of the whole parameter, even if this rank holds only a shard of it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _dimensions(parameter: Tensor) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))
