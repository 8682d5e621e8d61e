"""``classifier``: learns from labelled texts which ones are of the wanted class."""

from collections.abc import Mapping

import numpy as np

from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import ClassifierConfig
from w2s_ray.steps.context import Context
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import CLASSIFIER
from w2s_ray.tasks.beginnings import labelled_texts, texts_identity
from w2s_ray.tasks.classifiers import TextClassifier, fitted


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``classifier.safetensors``, and its accuracy on the texts of the prompts.

    Raises:
        ValueError: the texts have changed since the study was planned, or are of one class.
    """
    config, prompts = step.config_as(ClassifierConfig), step.prompts
    assert prompts is not None
    if texts_identity(prompts) != config.texts:
        raise ValueError("the texts have changed since the study was planned; run it again")
    own, unseen = labelled_texts(prompts, config.part), labelled_texts(prompts, "prompts")
    model = fitted(config.kind, [of.text for of in own], [of.is_wanted for of in own])
    bias = np.array([model.bias], dtype=np.float64)
    draft.write(CLASSIFIER, {"weights": model.weights, "bias": bias})
    said = model.log_odds([of.text for of in unseen]) > 0.0
    right = said == np.array([of.is_wanted for of in unseen])
    draft.metrics.update(trained_rows=len(own), rows=len(unseen), accuracy=float(right.mean()))


def read_classifier(artifact: Artifact) -> TextClassifier:
    """The classifier of a finished step."""
    tensors = artifact.tensors(CLASSIFIER)
    weights, bias = tensors["weights"], tensors["bias"]
    return TextClassifier(
        artifact.record["config"]["kind"], weights.astype(np.float64), float(bias[0].item())
    )
