"""How and where steps are computed: the ``execution`` section of a spec."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from w2s_ray.spec.fields import (
    Count,
    Model,
    NotNegative,
    Number,
    Positive,
    Text,
    as_list,
    mistake,
    refuse,
)


def machine_by_name(value: Any) -> Any:
    """Read the name of a machine type alone as a mapping, and null as an empty one."""
    if value is None:
        return {}
    return {"name": value} if isinstance(value, str) else value


class Machine(Model):
    """The machines that the planned GPUs are in. Null fields are those listed for the type."""

    name: Text | None = Field(
        None,
        description="a machine type in gpu_types.json, or any name with gpus, host_memory_gib and "
        "network_gbit_s; null: that of the cluster file, else the usual one of the gpu_type",
        examples=["g5.48xlarge"],
    )
    gpus: Count | None = Field(
        None,
        description="GPUs of one machine",
        examples=[8],
        json_schema_extra={"unit": "GPUs"},
    )
    host_memory_gib: Positive | None = Field(
        None,
        description="memory of one machine, which limits offloading",
        examples=[768.0],
        json_schema_extra={"unit": "GiB"},
    )
    network_gbit_s: Positive | None = Field(
        None,
        description="what one machine sends to others",
        examples=[100.0],
        json_schema_extra={"unit": "Gbit/s"},
    )
    usd_per_hour: NotNegative | None = Field(
        None,
        description="price of one machine; null: that of W2S_USD_PER_HOUR, if it has one",
        examples=[31.5],
        json_schema_extra={"unit": "USD/h"},
    )


class Execution(Model):
    """How and where steps are computed; never part of a key."""

    gpu_type: Text | None = Field(
        None,
        description="a type in gpu_types.json; the planner then chooses null fields for it",
        examples=["H100"],
    )
    prefer: Literal["cost", "time", "gpus"] = Field(
        "cost",
        description="what the planner minimises with a gpu_type: cost (GPU time, by the price), "
        "time (wall clock of a step) or gpus (of a step)",
        examples=["time"],
    )
    machine: Annotated[Machine, BeforeValidator(machine_by_name)] = Field(
        Machine(),
        description="the machine type, or its name",
        examples=["g5.48xlarge"],
    )
    workers: Count | None = Field(
        None,
        description="processes that train one model together; null: chosen, or 1",
        examples=[4],
        json_schema_extra={"unit": "processes"},
    )
    max_workers: Count = Field(
        64,
        description="the largest world size to choose, at least 1",
        examples=[8],
        json_schema_extra={"unit": "processes"},
    )
    inference_workers: Count = Field(
        1,
        description="processes that run a model over one data set together, for features, labels "
        "or predictions, each with the whole model; with --local one does",
        examples=[8],
        json_schema_extra={"unit": "processes"},
    )
    min_workers: Count | None = Field(
        None,
        description="minimum world size to resume with after losing nodes; null: all workers",
        examples=[2],
        json_schema_extra={"unit": "processes"},
    )
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = Field(
        None,
        description="DeepSpeed ZeRO stage, 0 to 3; null: chosen, or 2",
        examples=[3],
        json_schema_extra={"unit": ""},
    )
    offload: Literal["none", "optimizer", "parameters"] | None = Field(
        None,
        description="none, optimizer or parameters (optimizer and parameters) in host memory; "
        "null: chosen",
        examples=["optimizer"],
    )
    offload_path: Text | None = Field(
        None,
        description="a folder on a local NVMe disk to offload to, or null",
        examples=["/mnt/nvme"],
    )
    activation_checkpointing: bool | None = Field(
        None,
        description="true: recompute blocks in the backward pass; null: chosen, or false",
        examples=[True],
    )
    memory_margin: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.1,
        description="fraction of GPU and host memory to leave free, 0 to below 1",
        examples=[0.2],
        json_schema_extra={"unit": "fraction of memory"},
    )
    micro_batch_tokens: Count | None = Field(
        None,
        description="tokens of one worker's micro-batch; null: 4,096 on a CPU, 16,384 on a GPU, "
        "with a gpu_type chosen",
        examples=[8192],
        json_schema_extra={"unit": "tokens"},
    )
    checkpoint_steps: Count | None = Field(
        None,
        description="optimizer steps between checkpoints; null: no limit in steps",
        examples=[100],
        json_schema_extra={"unit": "optimizer steps"},
    )
    checkpoint_minutes: Positive | None = Field(
        10.0,
        description="minutes between checkpoints; null: no limit in minutes",
        examples=[30.0],
        json_schema_extra={"unit": "minutes"},
    )
    cpus_per_worker: Positive = Field(
        1.0,
        description="CPU cores per worker, above 0",
        examples=[2.0],
        json_schema_extra={"unit": "CPU cores"},
    )
    gpus_per_worker: Annotated[Number, Field(ge=0)] | None = Field(
        None,
        description="GPUs per worker: 0, 1, or with one worker a fraction (steps share a GPU); "
        "null: 1 with a gpu_type, else 0",
        examples=[0.5],
        json_schema_extra={"unit": "GPUs"},
    )
    max_concurrent_steps: Count | None = Field(
        None,
        description="how many steps may run at once; null: as many as fit",
        examples=[4],
        json_schema_extra={"unit": "steps"},
    )
    lora_together: Count = Field(
        1,
        description="LoRA students trained on one shared backbone, at least 1",
        examples=[4],
        json_schema_extra={"unit": "students"},
    )
    keep_models: Annotated[
        tuple[Literal["weak", "student", "ceiling"], ...], BeforeValidator(as_list)
    ] = Field(
        ("weak",),
        description="roles whose weights are kept (weak always)",
        examples=[["weak", "student"]],
    )
    train_predictions: bool = Field(
        True,
        description="false: no predictions of the rows that students learn from, and no shares of "
        "flipped labels that are restored or memorised",
        examples=[False],
    )
    export_models: Annotated[
        tuple[Literal["weak", "student", "ceiling"], ...], BeforeValidator(as_list)
    ] = Field(
        (),
        description="roles exported as AutoModelForSequenceClassification folders",
        examples=["student"],
    )

    sinks: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...], BeforeValidator(as_list)
    ] = Field(
        (),
        description="programs that get a copy of the numbers, one run per cell (monitoring.md)",
        examples=["tensorboard"],
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Check fields that depend on each other.

        Only ZeRO 3 offloads parameters, or to a disk. A process drives one GPU, and NCCL cannot
        connect two processes on the same GPU.
        """
        path, offload = self.offload_path, self.offload
        if self.gpu_type is None and self.machine != Machine():
            given = self.machine.name or "a machine"
            refuse([(("machine",), given, mistake("a gpu_type beside it", given=given))])
        if path is not None and offload in (None, "none"):
            expected = "null without offload: optimizer or parameters"
            refuse([(("offload_path",), path, mistake(expected))])
        if self.zero_stage not in (None, 3) and (path is not None or offload == "parameters"):
            reason = "offload: parameters" if path is None else "an offload_path"
            refuse([(("zero_stage",), self.zero_stage, mistake(f"3 or null with {reason}"))])
        gpus, one_worker = self.gpus_per_worker, self.workers in (None, 1)
        if gpus is None:
            return self
        if self.gpu_type is not None and gpus != 1.0:
            refuse([(("gpus_per_worker",), gpus, mistake("1 with a gpu_type", given=f"{gpus:g}"))])
        if gpus not in (0.0, 1.0) and not (gpus < 1 and one_worker):
            expected = f"0 or 1 with workers: {self.workers}"
            if one_worker:
                expected = "0, 1 or a fraction of 1"
            refuse([(("gpus_per_worker",), gpus, mistake(expected, given=f"{gpus:g}"))])
        return self

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        """Check ``min_workers`` ≤ ``workers`` ≤ ``max_workers``.

        ``max_workers`` limits the planner; only where it is written does it limit ``workers``.
        """
        workers, least, most = self.workers, self.min_workers, self.max_workers
        if workers is None:
            return self
        if least is not None and least > workers:
            expected = mistake(f"at most {workers} with workers: {workers}")
            refuse([(("min_workers",), least, expected)])
        if "max_workers" in self.model_fields_set and workers > most:
            expected = mistake(f"at most {most} with max_workers: {most}")
            refuse([(("workers",), workers, expected)])
        return self
