"""Rules of fusion: which ready steps one process computes together.

Fusion is execution: a fused step keeps its own key, artifact, record and failure.
"""

from w2s_ray.plan.configs import StudentConfig, TrainConfig
from w2s_ray.plan.step import Fusion, Step
from w2s_ray.store.canonical import canonical_json


def fuse_scores(step: Step) -> Fusion:
    """Scoring is so cheap that all of it goes to one process."""
    return Fusion("w2s_ray.steps.evaluate")


def fuse_labels(step: Step) -> Fusion | None:
    """Labels of heads are so cheap that those on the same features go to one process."""
    features = step.inputs.get("features")
    return None if features is None else Fusion("w2s_ray.steps.label", (features,))


def fuse_predictions(step: Step) -> Fusion | None:
    """Heads score the features of one test set in one product; other models score alone."""
    if "features" not in step.inputs:
        return None
    return Fusion("w2s_ray.steps.predict", (step.inputs["features"],))


def fuse_training(step: Step) -> Fusion | None:
    """Heads on the same features and split are one batched problem; LoRA students share passes.

    LoRA students are fused only where the spec asks for it (``lora_together``), if they share
    backbone and batches, learn from every row alike, and none needs DeepSpeed. Those whose labels
    depend on the other rows set identical pairs aside first, so they share passes of their own.
    """
    config, execution = step.config_as(TrainConfig), step.execution
    training = config.training
    if training.trainable == "last_layer":
        shared = (step.inputs["features"], str(step.kind.trained_on))
        return Fusion("w2s_ray.steps.train_heads", shared)
    alone = execution.uses_deepspeed or execution.lora_together == 1
    if training.trainable != "lora" or alone or not isinstance(config, StudentConfig):
        return None
    if not config.labels.all_rows_alike:
        return None
    batches = training.batches().as_json()
    rows = [step.inputs["prepare"], config.train_rows, config.validation_rows]
    rows.append(config.labels.depends_on_rows)
    same = canonical_json([config.model, batches, config.seed, *rows])
    return Fusion("w2s_ray.steps.train_adapters", (same,), execution.lora_together)
