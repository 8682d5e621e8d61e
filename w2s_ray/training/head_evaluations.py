"""Heads evaluated at several steps: the snapshots of all heads, scored in large products.

Products are made for ``BLOCK`` heads at a time, padded with zeros, so that which heads are fused
changes no bit.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.training.batched_heads import BLOCK
from w2s_ray.training.folded_heads import fold, head_inputs, logits_on
from w2s_ray.training.head_job import HeadJob, TrainedHead
from w2s_ray.training.validation import Evaluated, compact, scores


class Snapshots:
    """Scores heads at their evaluated steps.

    Args:
        mean, scale: of the standardisation of the training rows.
        validation: (v, m, H) features of the validation rows.
        test: (t, m, H) features of the test rows.
    """

    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        validation: NDArray[np.float32],
        test: NDArray[np.float32],
    ) -> None:
        self._mean, self._scale, self._per_row = mean, scale, test.shape[1]
        self._validation, self._test = head_inputs(validation), head_inputs(test)

    def evaluated(
        self, jobs: Sequence[HeadJob], heads: Sequence[TrainedHead]
    ) -> list[Evaluated | FloatingPointError | None]:
        """Of each head that has validation rows, in order; None for the others.

        The entry of a head whose scores are not finite is the error.
        """
        results: list[Evaluated | FloatingPointError | None] = [None] * len(heads)
        by_steps: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (job, head) in enumerate(zip(jobs, heads, strict=True)):
            if job.held_out is not None:
                by_steps[_steps(head)].append(index)
        for steps, members in by_steps.items():
            for start in range(0, len(members), BLOCK):
                block = members[start : start + BLOCK]
                for index, result in self._block(steps, block, jobs, heads).items():
                    results[index] = result
        return results

    def _block(
        self,
        steps: tuple[int, ...],
        members: Sequence[int],
        jobs: Sequence[HeadJob],
        heads: Sequence[TrainedHead],
    ) -> Mapping[int, Evaluated | FloatingPointError]:
        """The evaluations of up to ``BLOCK`` heads with the same evaluated steps."""
        weights = torch.zeros(BLOCK, len(steps), *heads[members[0]].weights.shape)
        for slot, index in enumerate(members):
            weights[slot] = torch.stack([*heads[index].snapshots, heads[index].weights])
        on_validation = self._logits(weights, self._validation)
        shape = (BLOCK, 0, len(self._test), on_validation.shape[3])
        before_last = np.zeros(shape, dtype=np.float32)
        if len(steps) > 1:
            before_last = self._logits(weights[:, :-1], self._test)
        return dict(self._results(steps, members, jobs, on_validation, before_last))

    @staticmethod
    def _results(
        steps: tuple[int, ...],
        members: Sequence[int],
        jobs: Sequence[HeadJob],
        on_validation: NDArray[np.float32],
        on_test: NDArray[np.float32],
    ) -> Iterator[tuple[int, Evaluated | FloatingPointError]]:
        for slot, index in enumerate(members):
            job = jobs[index]
            assert job.held_out is not None
            try:
                scored = scores(on_validation[slot], job.held_out, job.objective)
                evaluated = Evaluated(steps, scored, compact(on_test[slot]))
            except FloatingPointError as error:
                yield index, error
            else:
                yield index, evaluated

    def _logits(self, weights: Tensor, inputs: Tensor) -> NDArray[np.float32]:
        """(heads, E, n, K) logits from (heads, E, outputs, P) weights on scaled features."""
        flat = weights.flatten(0, 1)
        folded = fold(flat, self._mean, self._scale, self._per_row)
        logits = logits_on(folded, inputs)
        return logits.reshape(*weights.shape[:2], *logits.shape[1:])


def _steps(head: TrainedHead) -> tuple[int, ...]:
    """The evaluated steps of a head; of a solver the last iteration."""
    return head.evaluated or (len(head.curve.loss),)
