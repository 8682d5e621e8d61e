"""A cluster of three "hosts" with fake GPUs, two of which train under ZeRO-3: one is lost.

Run by ``tests/faults`` as a program, since its Ray is another than that of the test session.
Usage: lost_node.py FOLDER KEY, a key of ``STUDENTS``. Prints one JSON object.
"""

import json
import sys
import time
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster
from transformers import LlamaConfig, LlamaModel

from tests.testing.jobs import job
from tests.testing.steps import a_step
from w2s_ray.capacity.execution import Execution
from w2s_ray.cluster.tune_run import run
from w2s_ray.errors import InputError
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.objectives.objective import Objective
from w2s_ray.plan.step import Step
from w2s_ray.spec.schema import ModelSpec
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.training.job import TrainJob

SECONDS_A_BATCH = 0.4
HEAD = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
LOST_AFTER = 3  # updates
STUDENTS: dict[str, dict[str, Any]] = {"replaced": {}, "fewer": {"min_workers": 1}}


class Slow(Objective):
    """Leaves time to lose a machine."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(SECONDS_A_BATCH)
        return super().__call__(*arguments, **options)


class SlowAndHungry(Slow):
    """A pass of more than three rows does not fit."""

    def __call__(self, logits: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if len(logits) > 3:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return super().__call__(logits, *arguments, **options)


def job_of(name: str, folder: Path, execution: Execution) -> TrainJob:
    """Trains the model in ``folder``."""
    model = ModelSpec(source=str(folder / "model"))
    return job(name=name, model=model, execution=execution)


def execute(step: Step, store: Store, context: Any) -> dict[str, Any]:
    plain = job_of(step.key, Path(store.uri).parent, step.execution)
    kind = SlowAndHungry if step.key == "fewer" else Slow
    training = replace(
        plain,
        objective=kind(*astuple(plain.objective)),
        checkpoints=Checkpoints(store, step.key),
    )
    with store.draft(step.identity, {}) as draft:
        draft.metrics.update(context.fit(training, draft.folder, context.progress))
    return dict(draft.metrics)


EXECUTION: dict[str, Any] = {
    "workers": 2,
    "zero_stage": 3,
    "cpus_per_worker": 1.0,
    "gpus_per_worker": 1.0,
    "checkpoint_steps": 1,
    "micro_batch_tokens": 300,
}


def step(key: str, **changes: Any) -> Step:
    return a_step("student", key, **{**EXECUTION, **changes})


def save_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaModel(config).save_pretrained(folder)
    bytes_tokenizer().save_pretrained(folder)


def main(folder: Path, student: str) -> None:
    save_model(folder / "model")
    uri = str(folder / "store")
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    hosts = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    output: dict[str, Any] = {"lost": [], "failed": {}}

    def on_event(event: str, running: Step, numbers: dict[str, Any]) -> None:
        """Takes the second host away once, in the middle; in the main thread, as it must be."""
        key = running.key
        if event == "failed":
            output["failed"][key] = numbers["error"]
        if event != "progress" or numbers["step"] < LOST_AFTER or key in output["lost"]:
            return
        output["lost"].append(key)
        cluster.remove_node(hosts.pop(), allow_graceful=False)
        if key == "replaced":
            hosts.append(cluster.add_node(num_cpus=1, num_gpus=1))

    try:
        run({"four": step("four", workers=4)}, uri, execute=execute)
    except InputError as error:
        output["refused"] = str(error)
    todo = {student: step(student, **STUDENTS[student])}
    run(todo, uri, execute=execute, on_event=on_event)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(output))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
