"""Training runs on a tiny model that ranks of a process group and plain torch can both make."""

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from w2s_ray.data.batches import micro_batches, pack
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.packed_attention import use_if_exact
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.trainable import set_trainable
from w2s_ray.spec.schema import Lora
from w2s_ray.training.engine import Adam, Batch, Engine

STAGES = (0, 1, 2, 3)
STEPS, ROWS, SHORT, WIDTH, RATE, CLIP = 8, 8, 3, 12, 1e-3, 0.1


@dataclass(frozen=True)
class Case:
    """One training run; ``pieces`` is the number of micro-batches a step on every rank.

    With a ``budget`` of tokens the batches are cut as a job cuts them: into another number of
    micro-batches at each step, of unequal numbers of rows, and the last batch is a short one.
    """

    stage: int
    pieces: int = 1
    clip: float | None = None
    precision: str = "fp32"
    trainable: str = "full"
    real_rows: int = ROWS  # the others have weight 0
    per_row: int = 2  # 1: classification, with the confidence threshold
    budget: int | None = None
    offload: str = "none"

    def engine(self, scorer: nn.Module, parameters: list[nn.Parameter]) -> Any:
        from w2s_ray.training.deepspeed_engine import DeepSpeedEngine
        from w2s_ray.training.zero_config import Zero

        adam = Adam(clip_norm=self.clip)
        return DeepSpeedEngine(scorer, parameters, adam, zero=Zero(self.stage, self.offload))


SAME = [
    Case(stage, pieces, clip)
    for stage, (pieces, clip) in itertools.product(STAGES, ((1, None), (1, CLIP), (2, CLIP)))
]
UNEVEN = [Case(stage, clip=CLIP, budget=20) for stage in STAGES]
FILLED = [Case(stage, pieces=2, real_rows=5) for stage in STAGES]
BF16 = [Case(stage, pieces=2, clip=CLIP, precision="bf16") for stage in STAGES]
FROZEN = [
    Case(0, precision="bf16", trainable="last_layer"),
    Case(3, precision="bf16", trainable="last_layer"),
    Case(2, precision="bf16", trainable="lora"),
    Case(3, precision="fp32", trainable="lora"),
]
LORA_BF16_3 = Case(3, precision="bf16", trainable="lora")
THRESHOLD = [Case(2, pieces=2, per_row=1), Case(2, per_row=1, budget=15)]
CASES = [*SAME, *UNEVEN, *FILLED, *BF16, *FROZEN, LORA_BF16_3, *THRESHOLD]


def model(case: Case) -> tuple[Scorer, list[nn.Parameter]]:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    backbone = LlamaModel(config)
    if case.precision == "bf16":
        for parameter in backbone.parameters():
            parameter.data = parameter.data.bfloat16()
    assert use_if_exact(backbone)
    scorer = Scorer(backbone, 32, 2, case.per_row, seed=1)
    return scorer, set_trainable(scorer, case.trainable, Lora(rank=4), 0)


@contextmanager
def engine_of(case: Case) -> Iterator[Engine]:
    """The case's engine with its own model, on one rank."""
    engine = case.engine(*model(case))
    yield engine
    engine.close()
    gc.freeze()  # closing has just collected garbage: what is left need not be looked at again


def rows(seed: int, count: int, per_row: int) -> tuple[Tokens, Tensor]:
    """``count`` rows of texts of at most ``WIDTH`` tokens, and their soft labels (count, 2)."""
    random = torch.Generator().manual_seed(seed)
    prompts = torch.randint(0, WIDTH // 2, (count, 1), generator=random)
    answers = torch.randint(1, WIDTH // 2 + 1, (count, per_row), generator=random)
    segments = torch.cat([prompts, answers], dim=1).numpy()
    ids = torch.randint(64, (int(segments.sum()),), generator=random).int().numpy()
    labels = torch.rand(count, 2, generator=random).softmax(1)
    return Tokens([str(row) for row in range(count)], ids, segments, 0), labels


def line(tokens: Tokens, places: Tensor) -> dict[str, Tensor]:
    """What the scorer is called with for some rows."""
    input_ids, segments = pack(tokens, places.numpy())
    return {"input_ids": torch.from_numpy(input_ids), "segments": torch.from_numpy(segments)}


def stream(case: Case, rank: int, world: int, pieces: int) -> Iterator[list[Batch]]:
    """This rank's micro-batches; rows of weight 0 stand at the end of every step's batch."""
    for step in range(STEPS):
        count = SHORT if case.budget and step == STEPS - 1 else ROWS
        tokens, labels = rows(step, count, case.per_row)
        parts: list[tuple[Tensor, Tensor]]
        if case.budget:
            lengths = tokens.row_lengths
            cut = micro_batches(torch.arange(count).numpy(), lengths, case.budget, rank, world)
            parts = [(torch.from_numpy(places), torch.from_numpy(w)) for places, w in cut]
        else:
            weights = torch.zeros(count)
            weights[: case.real_rows] = 1 / case.real_rows
            cuts = (t.chunk(world * pieces) for t in (torch.arange(count), weights))
            parts = list(zip(*cuts, strict=True))[rank * pieces : (rank + 1) * pieces]
        yield [
            Batch(
                inputs=line(tokens, places),
                soft_labels=labels[places],
                weights=weights,
                tokens=int(tokens.row_lengths[places[weights > 0].numpy()].sum()),
            )
            for places, weights in parts
        ]


def state_of(engine: Engine, case: Case) -> dict[str, Tensor]:
    """The trained parameters; empty tensors above rank 0."""
    names = [n for n, p in model(case)[0].named_parameters() if p.requires_grad]
    return dict(engine.whole(names))


def close(actual: Tensor, wanted: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, wanted, atol=tolerance, rtol=tolerance)
