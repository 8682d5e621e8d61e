"""Packed pairs with shared prompts on a GPU: equal numbers, and the gain in pairs per second.

    python benchmarks/gpu_pairs.py            # a model of Qwen2.5-0.5B's shape
    python benchmarks/gpu_pairs.py --tiny     # on a CPU, in seconds: what a test runs

Needs torch, transformers and numpy, and of this project ``models/packed_attention.py`` and
``models/packed_layout.py`` alone. The weights are random, so nothing is downloaded. First, in fp32,
margins and gradients of packed lines are compared with those of padded separate rows, which this
file computes by itself with transformers' own SDPA. Then, in bf16, training steps (forward,
backward, fused AdamW) are measured alternately: packed lines with FlexAttention against padded
separate rows with SDPA. Exit code 1: the two do not agree.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import alternate, share  # the standard library alone
from w2s_ray.models import packed_attention

QWEN = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
TINY = {
    "hidden_size": 64,  # heads of 16, the minimum of FlexAttention
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
}
SHAPES = {"hh-harmless": (24, 38), "long prompts": (256, 128), "long answers": (64, 384)}
"""Mean tokens of a prompt and of an answer; lengths are drawn log-normally, as for real texts."""
CHECKED = 6  # pairs to compare; more long ones would fill a GPU as padded fp32 rows
BATCH_TOKENS = 16_000  # of a batch, by the mean lengths; padded rows have several times more
TOLERANCE = 2e-4  # fp32, relative to the largest value; long sums in another order


@dataclass(frozen=True)
class Pairs:
    """Random pairs.

    Attributes:
        ids: (T,) token ids, prompt, A and B of one pair after another.
        segments: (B, 3) lengths of prompt, A and B.
    """

    ids: Tensor
    segments: Tensor

    def texts(self) -> list[Tensor]:
        """Prompt + A and prompt + B of one pair after another."""
        texts = []
        parts = iter(self.ids.split(self.segments.flatten().tolist()))
        for prompt, first, second in zip(parts, parts, parts, strict=True):
            texts += [torch.cat([prompt, first]), torch.cat([prompt, second])]
        return texts


def draw(count: int, shape: tuple[int, int], vocabulary: int, seed: int, device: str) -> Pairs:
    """``count`` pairs with mean lengths ``shape``, of a prompt and an answer."""
    random = np.random.default_rng(seed)
    means = np.array([shape[0], shape[1], shape[1]])
    lengths = random.lognormal(np.log(means) - 0.18, 0.6, size=(count, 3)).astype(np.int64) + 1
    ids = random.integers(0, vocabulary, size=int(lengths.sum()))
    return Pairs(torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device))


def packed_states(model: Qwen2Model, pairs: Pairs) -> Tensor:
    """(2B, H) last states, computed with the code under test."""
    model.config._attn_implementation = packed_attention.NAME
    return packed_attention.packed(model, pairs.ids, pairs.segments)


def separate_states(model: Qwen2Model, pairs: Pairs) -> Tensor:
    """(2B, H) last states of padded rows, one per text.

    Padding is on the right, where a causal model cannot see it, so SDPA needs no mask and uses its
    fastest kernel.
    """
    model.config._attn_implementation = "sdpa"
    texts = pairs.texts()
    rows = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    states = model(input_ids=rows, use_cache=False).last_hidden_state
    last = torch.tensor([len(text) - 1 for text in texts], device=rows.device)
    return states[torch.arange(len(texts), device=rows.device), last]


States = Callable[[Qwen2Model, Pairs], Tensor]


def margins(states: States, model: Qwen2Model, head: Tensor, pairs: Pairs) -> Tensor:
    """(B,) float32 r(A) − r(B)."""
    rewards = (states(model, pairs).float() @ head).view(-1, 2)
    return rewards[:, 0] - rewards[:, 1]


def build(config: dict[str, int], dtype: torch.dtype, device: str) -> tuple[Qwen2Model, Tensor]:
    """A random model and a random head (H,)."""
    torch.manual_seed(0)
    model = Qwen2Model(Qwen2Config(**config, attn_implementation="sdpa", use_cache=False))
    head = torch.randn(config["hidden_size"]) / config["hidden_size"] ** 0.5
    return model.to(device=device, dtype=dtype).train(), head.to(device)


def differences(config: dict[str, int], pairs: Pairs, device: str) -> dict[str, float]:
    """Largest differences of margins and of any gradient, relative to the largest value."""
    model, head = build(config, torch.float32, device)
    results = []
    for states in (packed_states, separate_states):
        model.zero_grad()
        margin = margins(states, model, head, pairs)
        nn.functional.softplus(-margin).mean().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((margin.detach(), gradients))
    (one, one_gradients), (other, other_gradients) = results
    assert one_gradients.keys() == other_gradients.keys()
    return {
        "margins": relative(one, other),
        "gradients": max(
            relative(one_gradients[name], other_gradients[name]) for name in one_gradients
        ),
    }


def relative(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))


def pairs_per_second(
    config: dict[str, int], batches: list[Pairs], device: str, rounds: int
) -> list[dict[str, float]]:
    """Training steps in bf16: packed ("ours") and padded ("other"), with one model each."""
    ours = _Side(packed_states, config, batches, device)
    other = _Side(separate_states, config, batches, device)
    return alternate(rounds, ours.rate, other.rate)


class _Side:
    """One of the two sides: a model that is trained on the same batches again and again."""

    def __init__(
        self, states: States, config: dict[str, int], batches: list[Pairs], device: str
    ) -> None:
        self._states, self._batches, self._device = states, batches, device
        self._model, self._head = build(config, torch.bfloat16, device)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-6, fused=True)
        self.rate()  # warm-up: kernels are compiled and chosen

    def rate(self) -> float:
        """Pairs per second of training on all batches once."""
        _wait(self._device)
        started = time.perf_counter()
        for pairs in self._batches:
            margin = margins(self._states, self._model, self._head, pairs)
            nn.functional.softplus(-margin).mean().backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        _wait(self._device)
        count = sum(len(pairs.segments) for pairs in self._batches)
        return count / (time.perf_counter() - started)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Print one line per check and one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any device")
    parser.add_argument("--pairs", type=int, default=64, help="maximum pairs per batch")
    parser.add_argument("--batches", type=int, default=8, help="batches per round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("highest")
    config, shapes = QWEN, SHAPES
    if given.tiny:
        config, shapes = TINY, {"hh-harmless": (6, 9), "long prompts": (24, 12)}
        given.pairs, given.batches, given.rounds = 8, 1, 1
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    report: dict[str, object] = {
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    agree = True
    for title, shape in shapes.items():
        vocabulary = config["vocab_size"]
        apart = differences(config, draw(CHECKED, shape, vocabulary, 0, device), device)
        agree &= max(apart.values()) <= TOLERANCE
        count = min(given.pairs, BATCH_TOKENS // (shape[0] + 2 * shape[1]))
        batches = [
            draw(count, shape, vocabulary, seed, device) for seed in range(1, given.batches + 1)
        ]
        measured = pairs_per_second(config, batches, device, given.rounds)
        ratios = share(measured)
        print(
            f"{title}, {count} pairs: margins apart {apart['margins']:.1e}, gradients "
            f"{apart['gradients']:.1e} (at most {TOLERANCE:g}); packed {median(ratios):.2f} × "
            f"padded pairs/s ({min(ratios):.2f} – {max(ratios):.2f})",
            flush=True,
        )
        report[title] = {
            "pairs_a_batch": count,
            "apart": apart,
            "ratios": ratios,
            "pairs_per_second": measured,
        }
    print(json.dumps(report))
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
