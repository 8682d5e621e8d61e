"""Training on text is the same at every stage of ZeRO and on any number of ranks as in plain torch.

The same weights to 1e-6 after six updates, and on the way the same losses and norms to 1e-4, for
each objective, and with adapters. The batches are cut into micro-batches of unequal numbers of
rows, some of them fillers.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.testing.process_groups import ProcessGroups
from tests.testing.specs import TINY_MODEL
from tests.testing.text_jobs import EVERY, job, lora
from tests.testing.tiny_models import saved
from w2s_ray.capacity.execution import Execution
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.training.engine import Adam
from w2s_ray.training.fit_text import fit_text
from w2s_ray.training.text_job import TextJob

pytestmark = pytest.mark.groups

STAGES = (0, 1, 2, 3)
CHUNK = 15  # tokens for which the head is called together, of about 260 logits each
BUDGET = 70  # tokens of a micro-batch: two or three rows
TIED = ModelSpec.model_validate(
    {
        **TINY_MODEL,
        "architecture": "gpt2",
        "config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    }
)
# Of gradients near 0 Adam keeps the sign alone, and the sign of a rounding error is anything: an
# epsilon that is not small beside such gradients makes their size count.
ADAM = Adam(clip_norm=1.0, epsilon=1e-3)
# The margin of DPO is made of four sums of log-probabilities, of up to 200 nats, which fp32 knows
# to 1e-5; the loss of a margin is relatively as exact as the margin is absolutely.
SEEN = ("loss", "learning_rate", "gradient_norm")
Found = dict[str, Any]


def jobs(folder: Path) -> Mapping[str, TextJob]:
    """Each objective at every stage, adapters, a head that is the embedding; and a model of
    ``folder``, which is sharded while it is read, with what was trained before."""
    found = {f"{type(of).__name__}-{stage}": job(of) for of in EVERY for stage in STAGES}
    found |= {f"lora-{stage}": lora(job(EVERY[1])) for stage in (2, 3)}
    found["tied-3"] = replace(job(EVERY[1]), model=TIED)
    read = replace(job(EVERY[1]), model=ModelSpec(source=str(folder / "model")))
    found["read-3"] = read
    full = folder / "full.safetensors"
    found["read-trained-3"] = replace(read, initial=full, learning_rate=1e-4)
    found["read-lora-3"] = replace(lora(read), initial=folder / "lora.safetensors")
    return {
        name: replace(
            of,
            name=name,
            adam=ADAM,
            execution=Execution(workers=2, zero_stage=int(name[-1]), micro_batch_tokens=BUDGET),
        )
        for name, of in found.items()
    }


NAMES = tuple(jobs(Path()))


def trained(settings: TextJob, **options: Any) -> Found:
    """Curve, metrics and weights of one run; of ranks above 0 only the metrics."""
    with TemporaryDirectory() as folder:
        out = Path(folder)
        metrics = fit_text(settings, out, **options)
        if not (out / "curve.parquet").exists():
            return {"metrics": metrics}
        table = pq.read_table(out / "curve.parquet")
        return {
            "metrics": metrics,
            "weights": load_file(out / "model.safetensors"),
            **{name: np.array(table[name]) for name in SEEN},
        }


def pretrained(folder: Path) -> None:
    """A model of several files, and what trainings of it have written."""
    saved(folder / "model")
    for name, settings in (("full", "read-3"), ("lora", "read-lora-3")):
        out = folder / name
        out.mkdir()
        fit_text(replace(jobs(folder)[settings], initial=None, seed=5), out)
        (out / "model.safetensors").rename(folder / f"{name}.safetensors")


def train_all(rank: int, world: int, folder: Path, names: list[str]) -> dict[str, Found]:
    """What each rank does; ZeRO 3 calls the head for some fifteen tokens at a time."""
    from w2s_ray.models import answer_scorer
    from w2s_ray.training.deepspeed_engine import engine_options

    answer_scorer.SHARDED_LOGITS_AT_ONCE = CHUNK * 260
    every = jobs(folder)
    return {
        name: trained(every[name], rank=rank, **engine_options(every[name].execution, name))
        for name in names
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("read")
    pretrained(written)
    return written


@pytest.fixture(scope="module")
def seen(process_groups: ProcessGroups, folder: Path) -> dict[int, list[dict[str, Found]]]:
    return process_groups.run(train_all, {2: (folder, list(NAMES)), 1: (folder, ["Wspo-3"])})


@pytest.mark.parametrize("name", NAMES)
def test_a_group_trains_as_plain_torch_does(seen: Any, folder: Path, name: str) -> None:
    plain = trained(jobs(folder)[name])
    worlds = [world for world, ranks in seen.items() if name in ranks[0]]
    assert 2 in worlds
    for world in worlds:
        first, *others = (rank[name] for rank in seen[world])
        for column in SEEN:
            np.testing.assert_allclose(first[column], plain[column], rtol=1e-4, atol=1e-6)
        assert first["weights"].keys() == plain["weights"].keys()
        for parameter, value in plain["weights"].items():
            torch.testing.assert_close(first["weights"][parameter], value, rtol=1e-5, atol=1e-6)
        for metric in ("preference_accuracy", "mean_margin", "final_loss", "answer_tokens"):
            assert first["metrics"].get(metric) == pytest.approx(
                plain["metrics"].get(metric), abs=5e-5
            )
        assert first["metrics"]["workers"] == world
        assert all("weights" not in other for other in others), "rank 0 writes"
