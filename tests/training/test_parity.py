"""Every objective, with confidence on, is trained alike at every stage and world size.

One run of each on ranks of a group against plain torch with the whole batch in one process: the
same losses, norms and weights to 1e-5, and no shift to one side.
"""

import itertools
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.training.ranks import run_groups
from tests.training.test_deepspeed_engine import CLIP, Case, close, model, state_of, stream
from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam, Engine, TorchEngine
from w2s_ray.training.loop import train

pytestmark = pytest.mark.groups

STEPS, RATE = 4, 1e-3
STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Run:
    """One training run; ``case.pieces`` micro-batches a step on every rank."""

    loss: str
    case: Case

    def train(self, engine: Engine, rank: int, world: int) -> dict[str, Any]:
        batches = itertools.islice(stream(self.case, rank, world, self.case.pieces), STEPS)
        objective = Objective(
            self.loss,
            tuple(sorted(DEFINITIONS[self.loss].parameters.items())),
            confidence_weight=0.5,
        )
        curve = train(engine, batches, objective, total_steps=STEPS, learning_rate=RATE)
        return {
            "loss": torch.tensor(curve.loss),
            "norm": torch.tensor(curve.gradient_norm),
            "state": state_of(engine, self.case),
        }


FAMILY = [Run(loss, Case(stage, clip=CLIP)) for loss in DEFINITIONS for stage in STAGES]
CUT = [Run("reverse_kl", Case(stage, pieces=4, clip=CLIP)) for stage in STAGES]
WIDE = [Run("reverse_kl", Case(stage, clip=CLIP)) for stage in STAGES]
RUNS = {1: CUT, 2: FAMILY, 4: WIDE}  # by world size


@cache
def reference(loss: str) -> dict[str, Any]:
    case = Case(0, clip=CLIP)
    engine = TorchEngine(*model(case), Adam(clip_norm=CLIP))
    return Run(loss, case).train(engine, 0, 1)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    seen = {}
    for run in RUNS[world]:
        engine = run.case.engine(*model(run.case))
        seen[repr(run)] = run.train(engine, rank, world)
        engine.close()
    torch.save(seen, out / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    outs = {world: tmp_path_factory.mktemp(f"parity{world}") for world in RUNS}
    run_groups(__file__, outs)
    return {w: [torch.load(out / f"{r}.pt") for r in range(w)] for w, out in outs.items()}


def residual(run: Run, ranks: list[dict[str, Any]]) -> torch.Tensor:
    wanted = reference(run.loss)
    for rank in ranks:
        close(rank[repr(run)]["loss"], wanted["loss"], 1e-5)
        close(rank[repr(run)]["norm"], wanted["norm"], 1e-5)
    for name, value in ranks[0][repr(run)]["state"].items():
        close(value, wanted["state"][name], 1e-5)
    return ranks[0][repr(run)]["loss"] - wanted["loss"]


@pytest.mark.parametrize("loss", DEFINITIONS)
def test_every_objective_is_the_same_at_every_stage(seen: Any, loss: str) -> None:
    residuals = [residual(Run(loss, Case(stage, clip=CLIP)), seen[2]) for stage in STAGES]
    assert abs(torch.stack(residuals).mean()) < 1e-6


def test_four_ranks_and_four_micro_batches_are_one(seen: Any) -> None:
    residuals = [residual(run, seen[world]) for world in (1, 4) for run in RUNS[world]]
    assert abs(torch.stack(residuals).mean()) < 1e-7


def test_the_objectives_differ() -> None:
    """Or the rest would say little: losses that are one by definition aside."""
    weights = {loss: reference(loss)["state"]["head.weight"] for loss in DEFINITIONS}
    alike = {
        (one, other)
        for one, other in itertools.combinations(DEFINITIONS, 2)
        if torch.allclose(weights[one], weights[other], atol=1e-6)
    }
    assert alike <= {("forward_ce", "forward_kl")}


def test_bf16_is_what_a_bf16_reference_computes() -> None:
    """Plain autograd on bf16 weights with fp32 masters, gradients summed and updated in fp32."""
    case = Case(0, pieces=2, precision="bf16")
    run = Run("reverse_kl", case)
    ours = run.train(TorchEngine(*model(case), Adam()), 0, 1)
    scorer, parameters = model(case)
    masters = [p.detach().float().clone().requires_grad_() for p in parameters]
    optimizer = torch.optim.Adam(masters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    objective = Objective("reverse_kl", confidence_weight=0.5)
    losses = []
    for step, batches in enumerate(itertools.islice(stream(case, 0, 1, 2), STEPS)):
        sums = [torch.zeros_like(m) for m in masters]
        total = 0.0
        for batch in batches:
            alpha = objective.alpha(step, STEPS)
            rows = objective(scorer(**batch.inputs), batch.soft_labels, alpha=alpha, threshold=0.0)
            loss = (rows * batch.weights).sum()
            gradients = torch.autograd.grad(loss, parameters)
            sums = [s + g.float() for s, g in zip(sums, gradients, strict=True)]
            total += loss.item()
        for master, gradient in zip(masters, sums, strict=True):
            master.grad = gradient
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for parameter, master in zip(parameters, masters, strict=True):
                parameter.copy_(master)
        losses.append(total)
    close(ours["loss"], torch.tensor(losses, dtype=ours["loss"].dtype), 1e-6)
    names = [name for name, p in scorer.named_parameters() if p.requires_grad]
    for name, master in zip(names, masters, strict=True):
        close(ours["state"][name], master.detach(), 1e-6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
