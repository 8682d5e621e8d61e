"""From the step that trained a language model to its folder, with a card."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from w2s_ray.catalog.digests import WEIGHTS, hub_id
from w2s_ray.catalog.identity import template_identity, weights_identity
from w2s_ray.catalog.model_files import CONFIG
from w2s_ray.data.counting import counted
from w2s_ray.errors import InputError
from w2s_ray.extras import require
from w2s_ray.models.model_card import base_of
from w2s_ray.plan.configs import Training
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store

KINDS = ("align", "finetune", "prefer", "reward")
"""Kinds of steps that train a language model."""
_WHAT = {
    "align": "aligned by preference pairs",
    "finetune": "fine-tuned on answers that another model helped to write",
    "prefer": "trained on preferences after its fine-tuning",
    "reward": "trained by DPO on true preferences",
}

_CHAT = """messages = [{"role": "user", "content": "Why is the sky blue?"}]
options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
ids = tokenizer.apply_chat_template(messages, **options)
"""
_PLAIN = """prompt = "Why is the sky blue? "
ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
"""


def export(store_uri: str, key: str, folder: Path, source: str | None = None) -> None:
    """Writes the model of a step into ``folder``, whole or not at all.

    Args:
        key: of the step, or how it begins.
        source: of the model before training; None: as the study read it.

    Raises:
        InputError: no such step, a folder with something in it, or another model at the source.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: given something that exists, expected an empty or new folder")
    artifact = _trained(Store.open(store_uri), key)
    model = _model(artifact, source)
    training = Training.from_json(artifact.record["config"]["training"])
    if training.lora is not None:
        require("peft", f"{key!r}: given a model with adapters")
    with _written_whole(folder) as work:
        from w2s_ray.models.causal import load_causal
        from w2s_ray.models.text_export import write_language_model

        loaded = load_causal(model, training.precision, artifact.file(WEIGHTS), training)
        write_language_model(loaded, work)
        (work / "README.md").write_text(card(artifact.record, model), encoding="utf-8")


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder within ``folder``, whose files are moved up at the end; without it, none remains.

    Raises:
        InputError: it cannot be made, or written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder, prefix=".unfinished-"))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield work
        for file in sorted(work.iterdir(), key=lambda file: file.name == CONFIG):
            file.replace(folder / file.name)  # what makes it a model comes last
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _trained(store: Store, key: str) -> Artifact:
    found = [step for step in store.finished() if step.startswith(key)]
    if len(found) != 1 or not key:
        raise InputError(
            f"{key!r}: {len(found)} finished steps with a key that begins so, expected one; a "
            "study's results have it in model_key"
        )
    artifact = store.artifact(found[0])
    kind = artifact.record["kind"]
    if kind not in KINDS:
        raise InputError(
            f"{key!r}: given a step of kind {kind}, expected one that trains a language model "
            f"({', '.join(KINDS)}); models of preference pairs and classes are exported while they "
            "are trained (execution.export_models)"
        )
    return artifact


def _model(artifact: Artifact, source: str | None) -> ModelSpec:
    """The model before training, whose weights must be those that were trained from."""
    given = artifact.record["execution"]["model"]
    if source is not None:
        if given["source"] is None:
            raise InputError(f"--source: given {source}, expected none: it began at random weights")
        given = {**given, "source": source}
    moved = "; --source says where the model before training is now"
    try:
        model = ModelSpec.model_validate(given)
        here = {**weights_identity(model), **_template(model, artifact)}
    except ValidationError as error:
        raise InputError(f"--source: given {source!r}: {error.errors()[0]['msg']}") from error
    except InputError as error:
        raise InputError(f"{error}{'' if source else moved}") from error
    trained_from = artifact.record["config"]["model"]
    names = {*here, *({"chat_template"} & trained_from.keys())}
    if any(trained_from.get(name) != here.get(name) for name in names):
        raise InputError(
            f"{model.source or model.architecture}: given other weights, another chat template or "
            f"another kind of source than step {artifact.record['key']} began with, expected "
            f"{json.dumps(trained_from)}{'' if source else moved}"
        )
    return model


def _template(model: ModelSpec, artifact: Artifact) -> Mapping[str, Any]:
    """The chat template's identity, where the training rendered by it."""
    is_chat = artifact.record["config"]["training"].get("render") == "chat_template"
    return template_identity(model) if is_chat else {}


def card(record: Mapping[str, Any], model: ModelSpec) -> str:
    """README.md: what the model is, how it was trained, and how to use it."""
    config, metrics = record["config"], record["metrics"]
    training, base = config["training"], hub_id(model.source or "")
    is_chat = training.get("render") == "chat_template"
    objective = config.get("objective", "dpo")
    what = "trained to a weak model's log-ratios" if objective == "wspo" else _WHAT[record["kind"]]
    beta = f", β = {config['beta']:g}" if config.get("beta") is not None else ""
    rows = {
        "step": f"`{record['slug']}-{record['key']}`",
        "before training": base_of(model),
        "objective": f"{objective}{beta}",
        "training": f"{training['trainable']}, {counted(training['epochs'], 'epoch')}, batch size "
        f"{training['batch_size']}, learning rate {training['learning_rate']:g}",
        "rows": f"{metrics['rows']:,}" if "rows" in metrics else "",
        "precision": training["precision"],
        "seed": str(config["seed"]),
        "code": record["provenance"]["code"].get("commit") or "",
    }
    front = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {json.dumps(base)}"] if base else []),
        "tags:",
        "- weak-to-strong",
    ]
    use = _CHAT if is_chat else _PLAIN
    table = "\n".join(["| | |", "|---|---|", *(f"| {n} | {v} |" for n, v in rows.items() if v)])
    return f"""---
{chr(10).join(front)}
---

# {record["slug"]}

A language model of a study of weak-to-strong generalization, {what}.

{table}

Adapters, if there were any, are merged, and the sums rounded to the precision above.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(".")
{use}print(tokenizer.decode(model.generate(**ids, max_new_tokens=128)[0]))
```

The licence is that of the model before training.
"""
