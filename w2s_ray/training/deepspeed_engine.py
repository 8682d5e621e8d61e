"""The engine for several processes: DeepSpeed ZeRO 0 to 3 behind the protocol of ``engine.py``.

The numbers are those of ``TorchEngine``: the same Adam (given by us, so CPUAdam is not compiled),
fp32 master weights, and gradients summed in fp32 over micro-batches and ranks. DeepSpeed averages
over ranks where we want the sum, so the loss is multiplied by the number of ranks.

DeepSpeed's own ``bf16`` mode stays off, for it would cast the fp32 head as well and sum gradients
in bf16. Without it parameters keep their dtypes, and ZeRO 1 to 3 keep fp32 masters of bf16 ones.
ZeRO 0 has no masters: a bf16 model asked to train with it trains with ZeRO 1, which only shards
the optimizer. Two places need care, and a test holds both:

* ZeRO 1 and 2 take the dtype of their gradient buffers from the first parameter group.
* ZeRO 3 wants one dtype for all trained parameters. There the head is stored in bf16 beside an fp32
  remainder (``remainder.py``), so it still computes with its fp32 master; its gradient alone is
  rounded to bf16.
"""

import gc
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.memory import BUCKET_ELEMENTS
from w2s_ray.training import zero_state
from w2s_ray.training.engine import Adam, Fragment
from w2s_ray.training.split_precision import store_low

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed reads it once, when imported
import deepspeed
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_local_fp32_param,
    safe_set_local_fp32_param,
)

deepspeed.utils.logger.setLevel(logging.ERROR)
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
if deepspeed.get_accelerator().device_name() == "cpu":
    # An all-reduce for inference, never called here: compiling it takes more than a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


@dataclass(frozen=True)
class Zero:
    """How the state of a model lies on its ranks.

    Attributes:
        stage: 0 keeps everything on every rank; 1 shards masters and moments, 2 gradients too,
            3 parameters too.
        offload: ``none``; ``optimizer``: masters and moments in host memory, where torch's fused
            Adam updates them; ``parameters``: with stage 3, the shards of the weights too.
        folder: on a local NVMe disk, takes what is offloaded in place of host memory (stage 3
            alone; the others would ignore it). It is this run's own and goes with the engine.
    """

    stage: int
    offload: str = "none"
    folder: str | None = None

    @classmethod
    def of(cls, execution: Execution, name: str) -> "Zero":
        """What a step's execution says; ``name`` tells its files from those of other runs."""
        path = execution.offload_path
        folder = os.path.join(path, name) if path else None
        return cls(execution.zero_stage, execution.offload, folder)

    def partition(self, module: nn.Module) -> None:
        """Shards the module's own parameters, as stage 3 does; those of rank 0 count.

        Every rank calls this for one module after the other. What the other ranks' parameters hold
        is not looked at, so only rank 0 needs to read them.
        """
        join_group()
        config = _config(self, 0, None, 0)
        config["zero_optimization"]["memory_efficient_linear"] = False  # once, by the engine
        deepspeed.zero.Init(module=module, config_dict_or_path=config)


def engine_options(execution: Execution, name: str) -> dict[str, Any]:
    """Arguments of ``job.fit`` for a process of a group: how the execution of the run ``name``
    wants it."""
    zero = Zero.of(execution, name)
    return {
        "make_engine": partial(DeepSpeedEngine, zero=zero),
        "partition": zero.partition if zero.stage == 3 else None,
    }


def join_group() -> None:
    """Joins the process group of the environment, unless this process is in one.

    Where the environment names none, the process is a group by itself.
    """
    if dist.is_initialized():
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed looks for it
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)


class DeepSpeedEngine:
    """One rank of a process group that trains one model; every rank makes the same calls.

    Args:
        scorer: module that maps a batch's inputs to logits, the same on every rank. DeepSpeed moves
            it to the rank's device and rearranges its parameters: use it through the engine only.
        parameters: those to be trained, i.e. those of ``scorer`` that require a gradient.
        adam: optimizer settings.
        zero: what is sharded, and where it lies.

    The process joins the group described by its environment (RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT) unless it is a member of one already.
    """

    def __init__(
        self,
        scorer: nn.Module,
        parameters: Sequence[nn.Parameter],
        adam: Adam,
        *,
        zero: Zero,
    ) -> None:
        join_group()
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._all = dict(scorer.named_parameters())
        self._trained = {n: p for n, p in self._all.items() if p.requires_grad}
        assert {id(p) for p in self._trained.values()} == {id(p) for p in parameters}
        full = [p for p in parameters if p.dtype == torch.float32]
        low = [p for p in parameters if p.dtype != torch.float32]
        least = 1 if low or zero.offload != "none" else 0
        self._stage = max(zero.stage, least)
        self._folder = zero.folder
        self.sharded = self._stage > 0
        whole = low and self._stage == 3
        self._remainders = store_low(scorer, full, low[0].dtype) if whole else {}
        # First the dtype of the buffers: ZeRO 2 sends gradients in it; ZeRO 1 sums them in fp32
        # apart from the gradients themselves only if it is bf16.
        groups = [full, low] if self._stage == 2 else [low, full]
        self._linear = nn.functional.linear  # ZeRO 3 replaces it in the whole process
        self._engine, *_ = deepspeed.initialize(
            model=scorer,
            optimizer=torch.optim.Adam(
                [{"params": group} for group in groups if group],
                lr=0.0,
                betas=adam.betas,
                eps=adam.epsilon,
                fused=True,
            ),
            config=_config(
                replace(zero, stage=self._stage),
                sum(_size(p) for p in self._trained.values()),
                adam.clip_norm,
                max((_size(p) for p in self._all.values() if _dimensions(p) < 2), default=0),
            ),
        )
        for parameter, remainder in self._remainders.items():  # masters copied what was stored
            master = safe_get_local_fp32_param(parameter)
            size = master.numel()
            rest = nn.functional.pad(
                remainder.rest.flatten(), (0, size * self.world - remainder.rest.numel())
            )
            safe_set_local_fp32_param(parameter, master + rest[self.rank * size :][:size])

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(b, K) float32 logits; under ZeRO 3 every rank must make the same number of calls."""
        placed = {name: tensor.to(self._engine.device) for name, tensor in inputs.items()}
        logits: Tensor = self._engine(**placed)
        return logits

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Adds the gradient of this rank's Σ weight · loss; the last call of a step reduces."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.world)

    def step(self, learning_rate: float) -> float:
        """Updates; returns the norm over all ranks of the whole gradient before clipping.

        Raises:
            RuntimeError: no micro-batch since the last step was said to be the last.
            FloatingPointError: the gradient is not finite; DeepSpeed would leave the update out.
        """
        if not self._engine.is_gradient_accumulation_boundary():
            raise RuntimeError("step before the last micro-batch")
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._stage == 0:  # plain Adam: DeepSpeed clips but does not tell the norm
            gradients = [p.grad for p in self._trained.values() if p.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
            self._engine.step()
        else:
            self._engine.step()
            norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {norm}")
        for parameter, remainder in self._remainders.items():
            remainder.update(safe_get_full_fp32_param(parameter))
        return norm

    def gather(self, values: Tensor) -> Tensor:
        """(b, …) of every rank, the same shape on each, joined in the order of ranks."""
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
        for parameter, remainder in self._remainders.items():
            remainder.update(safe_get_full_fp32_param(parameter))

    @property
    def _optimizer(self) -> Any:
        return self._engine.optimizer if self._stage else self._engine.basic_optimizer

    def _copy(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to("cpu", copy=True) if self.rank == 0 else torch.empty(0)

    def close(self) -> None:
        """Frees DeepSpeed's memory; engine and scorer are spent. The process group stays."""
        self._engine.destroy()
        nn.functional.linear = self._linear
        # Hooks on the scorer and a cache in DeepSpeed keep its objects: drop their tensors by hand.
        for optimizer in (self._engine.optimizer, self._engine.basic_optimizer):
            vars(optimizer).clear()
        if self._stage == 3:
            for parameter in self._engine.module.parameters():
                parameter.ds_tensor.data = parameter.data = parameter.data.new_empty(0)
        del self._engine, self._trained, self._all, self._remainders
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        gc.collect()
        torch.cuda.empty_cache()


def _size(parameter: Tensor) -> int:
    """Elements of a parameter, of which this rank may hold a part."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _dimensions(parameter: Tensor) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))


def _config(zero: Zero, trained: int, clip: float | None, largest_small: int) -> dict[str, Any]:
    """DeepSpeed's configuration.

    Args:
        trained: elements of all trained parameters.
        largest_small: elements of the largest norm or bias.
    """
    bucket = max(2, min(trained + trained % 2, BUCKET_ELEMENTS))
    place: dict[str, Any] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if zero.folder is not None:
        place = {"device": "nvme", "nvme_path": zero.folder, "pin_memory": True}
    offload = {}
    if zero.offload != "none":
        offload["offload_optimizer"] = place
    if zero.offload == "parameters":
        offload["offload_param"] = place
    return {
        "train_micro_batch_size_per_gpu": 1,  # for its own statistics only
        "gradient_accumulation_steps": 1,  # backward() says which micro-batch is the last
        "gradient_clipping": clip or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},
        "zero_optimization": {
            "stage": zero.stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            # Norms and biases stay whole on every rank; all matrices are sharded.
            "stage3_param_persistence_threshold": largest_small,
            **offload,
        },
    }
