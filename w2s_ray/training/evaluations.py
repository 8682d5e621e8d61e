"""A model that is scored while it trains, and what of this a checkpoint holds.

The test and validation rows are scored after each evaluated step before the last; the end of the
training scores the last. A resumed run has the logits of the steps before it from its checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.data.tokens import Tokens
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.validation import Evaluated, HeldOut, compact, scores

Score = Callable[[Tokens], NDArray[np.float32]]
"""(…, n, K) logits of rows by the model as it is now; every rank of a group calls it."""

EVALUATED = "evaluated/"  # prefix of the names of logits in a checkpoint's file


class Evaluations:
    """The logits of the evaluated steps of one training.

    Args:
        steps: the evaluated optimizer steps (from 1); the last is the last of the training.
        score: scores rows.
        validation, test: the rows.
    """

    def __init__(
        self, steps: Sequence[int], score: Score, validation: Tokens, test: Tokens
    ) -> None:
        self.steps = tuple(steps)
        self._score = score
        self._rows = {"validation": validation, "test": test}
        self._logits: dict[str, dict[int, NDArray[np.float32]]] = {"validation": {}, "test": {}}

    def due(self, step: int) -> bool:
        """Whether the model is scored after optimizer step ``step``, before the last."""
        return step in self.steps[:-1]

    def evaluate(self, step: int) -> None:
        """Scores all rows by the model as it is after optimizer step ``step``.

        Raises:
            FloatingPointError: of ``score``; with the step.
        """
        for name, rows in self._rows.items():
            try:
                self._logits[name][step] = self._score(rows)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}, after step {step}") from error

    def evaluated(self, held_out: HeldOut, objective: Objective) -> Evaluated:
        """Scores the validation rows once more, at the end, and returns what all steps gave."""
        return self._evaluated(self.at_end(), held_out, objective, ())

    def at_end(self) -> NDArray[np.float32]:
        """Logits of the validation rows by the model as it is now."""
        return self._score(self._rows["validation"])

    def of_cell(
        self,
        cell: int,
        at_end: NDArray[np.float32],
        held_out: HeldOut,
        objective: Objective,
    ) -> Evaluated:
        """What all steps gave for one of several models whose logits are scored together.

        Args:
            at_end: as ``at_end`` gave it.
        """
        return self._evaluated(at_end, held_out, objective, (cell,))

    def _evaluated(
        self,
        at_end: NDArray[np.float32],
        held_out: HeldOut,
        objective: Objective,
        part: tuple[int, ...],
    ) -> Evaluated:
        before = [self._logits["validation"][step][part] for step in self.steps[:-1]]
        scored = scores(np.stack([*before, at_end[part]]), held_out, objective)
        shape = (0, len(self._rows["test"].segments), at_end.shape[-1])
        test = [self._logits["test"][step][part] for step in self.steps[:-1]]
        stacked = np.stack(test) if test else np.zeros(shape, dtype=np.float32)
        return Evaluated(self.steps, scored, compact(stacked))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and logits of the steps so far, for a checkpoint."""
        for name, by_step in self._logits.items():
            for step, logits in by_step.items():
                yield f"{EVALUATED}{name}/{step}", torch.from_numpy(logits)

    def restore(self, named: Mapping[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        for name, logits in named.items():
            _, rows, step = name.split("/")
            self._logits[rows][int(step)] = logits.numpy()
