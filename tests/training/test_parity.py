"""Every objective, with confidence on, is trained alike at every stage and world size.

One run of each on ranks of a group against plain torch with the whole batch in one process: the
same losses, norms and weights to 1e-5, and no shift to one side. ``make ci`` runs every objective
at one stage and one objective at every stage; the whole product is among the slow tests.
"""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

from tests.testing.process_groups import ProcessGroups
from tests.testing.zero_cases import (
    CLIP,
    RATE,
    STAGES,
    Case,
    close,
    engine_of,
    model,
    state_of,
    stream,
)
from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam, Engine, TorchEngine
from w2s_ray.training.loop import train

STEPS = 4


# With the default c no label of these rows is confident, and the loss would be reverse CE.
PARAMETERS = {"confidence_adaptive_ce": {"c": 0.1}}


@dataclass(frozen=True)
class Run:
    """One training run; ``case.pieces`` micro-batches a step on every rank."""

    loss: str
    case: Case

    def train(self, engine: Engine, rank: int, world: int) -> dict[str, Any]:
        batches = itertools.islice(stream(self.case, rank, world, self.case.pieces), STEPS)
        objective = Objective(
            self.loss,
            tuple(
                sorted((DEFINITIONS[self.loss].defaults | PARAMETERS.get(self.loss, {})).items())
            ),
            confidence_weight=0.5,
        )
        curve = train(engine, batches, objective, total_steps=STEPS, learning_rate=RATE)
        return {
            "loss": torch.tensor(curve.loss),
            "norm": torch.tensor(curve.gradient_norm),
            "state": state_of(engine, self.case),
        }


PRODUCT = [Run(loss, Case(stage, clip=CLIP)) for loss in DEFINITIONS for stage in STAGES]
LOSSES = [run for run in PRODUCT if run.case.stage == 3]  # every loss at one stage
STAGED = [run for run in PRODUCT if run.loss == "reverse_kl"]  # one loss at every stage
CROSS = list(dict.fromkeys([*LOSSES, *STAGED]))
REST = [run for run in PRODUCT if run not in CROSS]
CUT = [Run("reverse_kl", Case(stage, pieces=4, clip=CLIP)) for stage in STAGES]
RUNS = {1: CUT, 2: CROSS, 4: STAGED}  # by world size


@cache
def reference(loss: str) -> dict[str, Any]:
    case = Case(0, clip=CLIP)
    engine = TorchEngine(*model(case), Adam(clip_norm=CLIP))
    return Run(loss, case).train(engine, 0, 1)


def train_all(rank: int, world: int, runs: list[Run]) -> dict[Run, dict[str, Any]]:
    """What each rank does."""
    seen = {}
    for run in runs:
        with engine_of(run.case) as engine:
            seen[run] = run.train(engine, rank, world)
    return seen


Seen = dict[int, list[dict[Run, dict[str, Any]]]]  # by world size and rank


@pytest.fixture(scope="module")
def seen(process_groups: ProcessGroups) -> Seen:
    return process_groups.run(train_all, {world: (runs,) for world, runs in RUNS.items()})


@pytest.fixture(scope="module")
def rest(process_groups: ProcessGroups) -> Seen:
    return process_groups.run(train_all, {2: (REST,)})


def residual(run: Run, ranks: list[dict[Run, dict[str, Any]]]) -> torch.Tensor:
    wanted = reference(run.loss)
    for rank in ranks:
        close(rank[run]["loss"], wanted["loss"], 1e-5)
        close(rank[run]["norm"], wanted["norm"], 1e-5)
    for name, value in ranks[0][run]["state"].items():
        close(value, wanted["state"][name], 1e-5)
    return ranks[0][run]["loss"] - wanted["loss"]


@pytest.mark.groups
@pytest.mark.parametrize("run", CROSS, ids=lambda run: f"{run.loss}-zero{run.case.stage}")
def test_every_objective_at_one_stage_and_one_at_every_stage(seen: Seen, run: Run) -> None:
    residual(run, seen[2])


@pytest.mark.groups
def test_no_shift_to_one_side(seen: Seen) -> None:
    for runs in (LOSSES, STAGED):
        assert abs(torch.stack([residual(run, seen[2]) for run in runs]).mean()) < 1e-6


@pytest.mark.groups
@pytest.mark.slow
@pytest.mark.parametrize("loss", DEFINITIONS)
def test_every_objective_is_the_same_at_every_stage(seen: Seen, rest: Seen, loss: str) -> None:
    residuals = [
        residual(run, (seen if run in CROSS else rest)[2]) for run in PRODUCT if run.loss == loss
    ]
    assert abs(torch.stack(residuals).mean()) < 1e-6


@pytest.mark.groups
def test_four_ranks_and_four_micro_batches_are_one(seen: Seen) -> None:
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
