"""The kinds of steps, one row each.

To add a kind: a row here, a class in ``configs``, a method of ``build.Builder``, and a module of
``steps/`` with a function ``run``. CONTRIBUTING.md walks through it.
"""

from collections.abc import Mapping

from w2s_ray.data.prepare import SPLITS
from w2s_ray.plan.fusion import fuse_labels, fuse_predictions, fuse_scores, fuse_training
from w2s_ray.plan.step import Kind

# In the order in which data flow; also the order of tables.
_ROWS = (
    Kind("prepare", 2, "w2s_ray.steps.prepare", needs_torch=False, plural="data sets"),
    Kind("test_set", 1, "w2s_ray.steps.test_set", needs_torch=False, plural="further test sets"),
    Kind("features", 2, "w2s_ray.steps.features", scored=SPLITS, is_end=False),
    Kind("test_features", 1, "w2s_ray.steps.features", scored=("test",), is_end=False),
    Kind(
        "weak",
        4,
        "w2s_ray.steps.train",
        trained_on="ground_truth",
        scored=("test",),
        plural="weak models",
        fusion=fuse_training,
    ),
    Kind(
        "reward",
        1,
        "w2s_ray.steps.reward",
        trained_on="ground_truth",
        scored=("test",),
        plural="weak models with implicit rewards",
    ),
    Kind(
        "label",
        1,
        "w2s_ray.steps.label",
        scored=("weak",),
        plural="sets of weak labels",
        fusion=fuse_labels,
    ),
    Kind("ensemble", 1, "w2s_ray.steps.ensemble", needs_torch=False, plural="ensembles"),
    Kind(
        "ceiling",
        4,
        "w2s_ray.steps.train",
        trained_on="ground_truth",
        scored=("test",),
        plural="ceilings",
        fusion=fuse_training,
    ),
    Kind(
        "student",
        4,
        "w2s_ray.steps.train",
        trained_on="weak",
        scored=("test",),
        plural="students",
        fusion=fuse_training,
    ),
    Kind(
        "strong_on_weak_rows",
        1,
        "w2s_ray.steps.train",
        trained_on="weak",
        scored=("test",),
        plural="strong models on the weak rows",
        fusion=fuse_training,
    ),
    Kind("untrained", 1, "w2s_ray.steps.untrained", scored=("test",), plural="untrained models"),
    Kind("baseline", 1, "w2s_ray.steps.baseline", needs_torch=False, plural="baselines"),
    Kind(
        "predict",
        1,
        "w2s_ray.steps.predict",
        scored=("test",),
        is_end=False,
        plural="predictions of further test sets",
        fusion=fuse_predictions,
    ),
    Kind(
        "evaluate",
        2,
        "w2s_ray.steps.evaluate",
        needs_torch=False,
        plural="sets of predictions",
        fusion=fuse_scores,
    ),
    Kind("prompts", 1, "w2s_ray.steps.prompts", needs_torch=False, plural="sets of prompts"),
    Kind(
        "classifier",
        1,
        "w2s_ray.steps.classifier",
        needs_torch=False,
        is_end=False,
        plural="classifiers",
    ),
    Kind(
        "pairs", 1, "w2s_ray.steps.pairs", needs_torch=False, is_end=False, plural="sets of pairs"
    ),
    Kind(
        "align",
        1,
        "w2s_ray.steps.train_text",
        trained_on="pairs",
        is_end=False,
        plural="aligned models",
    ),
    Kind("generate", 1, "w2s_ray.steps.generate", plural="sets of samples"),
    Kind("ratios", 1, "w2s_ray.steps.ratios", is_end=False, plural="sets of weak log-ratios"),
    Kind(
        "finetune",
        1,
        "w2s_ray.steps.train_text",
        trained_on="samples",
        is_end=False,
        plural="fine-tuned models",
    ),
    Kind(
        "prefer",
        1,
        "w2s_ray.steps.train_text",
        trained_on="pairs",
        is_end=False,
        plural="models after preferences",
    ),
    Kind("judge", 1, "w2s_ray.steps.judge", needs_torch=False, plural="sets of verdicts"),
    Kind("perplexity", 1, "w2s_ray.steps.perplexity", plural="sets of perplexities"),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ROWS}
