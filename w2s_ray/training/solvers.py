"""Heads trained to the minimum: the mean objective over all rows, in float64, without batches.

Training by batches stops where its steps end; what theory says of a minimiser can only be seen at
one. Both solvers go downhill at every step, also where the objective is not convex.

* ``newton``: second derivatives of the objective with respect to the logits, hence its Hessian in
  the weights, damped as Levenberg does: a step that does not go downhill is tried again with ten
  times the damping, one that does lowers it.
* ``lbfgs``: scipy's L-BFGS-B, for heads whose Hessian would be too large.

Logits count only up to a constant, so class 0 is held at 0 and the K classes' weights are centred
at the end: that is the smallest of all equal solutions, and the one that steps from zero stay at.

Hard labels that a linear rule separates have no minimiser: the loss goes on falling for ever. A
small gradient does not tell that case, but the step that Newton's method would take does: there it
never becomes small. So ``converged`` asks for both.
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.objectives.divergence import loss
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.batched_heads import HeadJob, Trained
from w2s_ray.training.loop import Curve

SOLVERS = ("newton", "lbfgs")
MAX_ITERATIONS = {"newton": 100, "lbfgs": 2000}
GRADIENT_TOLERANCE = 1e-7
"""Norm of the gradient, nats a unit of a standardised weight."""
STEP_TOLERANCE = 1e-3
"""Norm of the Newton step that is left, as a share of 1 + the weights' norm."""
GRADIENT_FLOOR = 1e-11
"""Where the gradient is below this and the step still long, there is no minimum to come to."""
NEWTON_PARAMETERS = 6000
"""Above this the Hessian alone takes 0.3 GB and its factorisation many seconds."""
LEAST_DAMPING, MOST_DAMPING = 1e-12, 1e12
"""As a share of the mean curvature of the coordinates."""


def solve(rows: Tensor, job: HeadJob, outputs: int) -> Trained:
    """The head that minimises the job's objective, from a head at zero.

    Args:
        rows: (n, P) float64, standardised; with a column of 1 where there is a bias.
        outputs: of the head: 1 for pairs, else K.

    Returns:
        The weights, a curve and the facts solver, iterations, gradient_norm and converged. The
        curve's entries are the loss and the gradient's norm before each iteration and after the
        last; rates and α are 0.

    Raises:
        ValueError: an unknown solver; confidence regularisation, whose target moves with the
            student; too many parameters for newton.
        FloatingPointError: the loss is not finite at the start.
    """
    if job.solver not in SOLVERS:
        raise ValueError(f"solver {job.solver!r} is not one of sgd, {', '.join(SOLVERS)}")
    if job.objective.confidence_weight:
        raise ValueError(
            f"solver {job.solver} with confidence_weight {job.objective.confidence_weight}:"
            " the student's own guesses change the objective as it learns; 0 or sgd expected"
        )
    started = time.monotonic()
    problem = _Problem(rows, torch.from_numpy(job.soft_labels).double(), job.objective)
    if job.solver == "newton" and problem.size > NEWTON_PARAMETERS:
        raise ValueError(
            f"solver newton with {problem.size} parameters: at most {NEWTON_PARAMETERS}"
            " expected; use lbfgs"
        )
    curve = Curve()
    theta, converged = (_newton if job.solver == "newton" else _lbfgs)(problem, curve)
    curve.learning_rate = curve.alpha = [0.0] * len(curve.loss)
    curve.seconds = time.monotonic() - started
    facts = {
        "solver": job.solver,
        "iterations": len(curve.loss) - 1,
        "gradient_norm": curve.gradient_norm[-1],
        "converged": converged,
        "final_loss": curve.loss[-1],
    }
    weights = theta.view(problem.free, -1)
    if outputs > 1:
        weights = torch.cat([torch.zeros_like(weights[:1]), weights])
        weights = weights - weights.mean(dim=0)
    return Trained(weights.float(), curve, facts)


def _at_minimum(theta: Tensor, gradient: Tensor, step: Tensor | None) -> bool:
    """By the gradient and by the Newton step from here; None: the Hessian has none."""
    if step is None or float(gradient.norm()) > GRADIENT_TOLERANCE:
        return False
    return float(step.norm()) <= STEP_TOLERANCE * (1.0 + float(theta.norm()))


class _Problem:
    """The mean objective of weights θ, (free · P,), where the logits of class 0 are held at 0."""

    def __init__(self, rows: Tensor, soft_labels: Tensor, objective: Objective) -> None:
        self.rows = rows
        self.free = soft_labels.shape[1] - 1
        self.size = self.free * rows.shape[1]
        self._soft_labels, self._objective = soft_labels, objective

    def value(self, theta: Tensor) -> float:
        with torch.no_grad():
            return float(self._mean(self._scores(theta)))

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        scores = self._scores(theta).requires_grad_()
        value = self._mean(scores)
        (slopes,) = torch.autograd.grad(value, scores)
        return float(value.detach()), (slopes.T @ self.rows).flatten()

    def curvature(self, theta: Tensor) -> tuple[float, Tensor, Tensor]:
        """Value, gradient and Hessian (size, size). Rows do not mix, so the second derivatives
        with respect to all rows' logits are one more backward pass a class."""
        scores = self._scores(theta).requires_grad_()
        value = self._mean(scores)
        (slopes,) = torch.autograd.grad(value, scores, create_graph=True)
        blocks = []
        for a in range(self.free):
            (second,) = torch.autograd.grad(slopes[:, a].sum(), scores, retain_graph=True)
            blocks.append(
                [self.rows.T @ (self.rows * second[:, b : b + 1]) for b in range(self.free)]
            )
        hessian = torch.cat([torch.cat(row, dim=1) for row in blocks])
        gradient = (slopes.detach().T @ self.rows).flatten()
        return float(value.detach()), gradient, (hessian + hessian.T) / 2

    def newton_step(self, theta: Tensor, gradient: Tensor) -> Tensor | None:
        """-H⁻¹ g by conjugate gradients, without H; None where the curvature is not positive."""
        scores = self._scores(theta).requires_grad_()
        (slopes,) = torch.autograd.grad(self._mean(scores), scores, create_graph=True)
        step = torch.zeros_like(theta)
        residual = direction = -gradient
        for _ in range(2 * self.size):
            size = float(residual @ residual)
            if size <= 1e-20 * float(gradient @ gradient):
                break
            along = self._scores(direction)
            (second,) = torch.autograd.grad(slopes, scores, along, retain_graph=True)
            curvature = float((second * along).sum())
            if curvature <= 0.0:
                return None
            step = step + size / curvature * direction
            residual = residual - size / curvature * (second.T @ self.rows).flatten()
            direction = residual + float(residual @ residual) / size * direction
        return step

    def _scores(self, theta: Tensor) -> Tensor:
        return self.rows @ theta.view(self.free, -1).T

    def _mean(self, scores: Tensor) -> Tensor:
        objective = self._objective
        logits = torch.nn.functional.pad(scores, (1, 0))
        losses = loss(
            objective.loss,
            logits,
            self._soft_labels,
            label_clip=objective.label_clip,
            **dict(objective.loss_parameters),
        )
        return losses.mean()


def _newton(problem: _Problem, curve: Curve) -> tuple[Tensor, bool]:
    """The weights, and whether they are at a minimum."""
    theta = torch.zeros(problem.size, dtype=torch.float64)
    damping = 1e-3
    while True:
        value, gradient, hessian = problem.curvature(theta)
        _record(curve, value, float(gradient.norm()))
        scale = float(hessian.diagonal().abs().mean())
        found = _at_minimum(theta, gradient, _damped_step(hessian, gradient, scale * LEAST_DAMPING))
        ended = len(curve.loss) > MAX_ITERATIONS["newton"]
        if found or ended or curve.gradient_norm[-1] < GRADIENT_FLOOR:
            return theta, found
        while True:
            step = _damped_step(hessian, gradient, scale * damping)
            if step is not None and problem.value(theta + step) < value:
                theta = theta + step
                damping = max(damping / 10.0, LEAST_DAMPING)
                break
            damping *= 10.0
            if damping > MOST_DAMPING:  # no way down that float64 can tell
                return theta, found


def _damped_step(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor | None:
    """-(H + damping I)⁻¹ g, or None where that matrix is not positive definite."""
    damped = hessian.clone()
    damped.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        return None
    return -torch.cholesky_solve(gradient[:, None], factor)[:, 0]


def _lbfgs(problem: _Problem, curve: Curve) -> tuple[Tensor, bool]:
    """The weights, and whether they are at a minimum."""
    latest = [0.0, 0.0]

    def value_and_gradient(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = problem.gradient(torch.from_numpy(theta))
        latest[:] = value, float(gradient.norm())
        return value, gradient.numpy()

    def after_iteration(xk: NDArray[np.float64]) -> None:
        _record(curve, *latest)

    start = np.zeros(problem.size)
    value_and_gradient(start)
    _record(curve, *latest)
    from scipy.optimize import minimize  # a quarter of a second, for few

    # gtol bounds the largest entry; the norm is at most the root of their number times that.
    tolerance = 0.1 * GRADIENT_TOLERANCE / np.sqrt(problem.size)
    most = MAX_ITERATIONS["lbfgs"]
    result = minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=after_iteration,
        options={"maxiter": most, "maxfun": 4 * most, "maxcor": 20, "ftol": 0.0, "gtol": tolerance},
    )
    theta, gradient = torch.from_numpy(result.x.copy()), torch.from_numpy(result.jac.copy())
    return theta, _at_minimum(theta, gradient, problem.newton_step(theta, gradient))


def _record(curve: Curve, value: float, norm: float) -> None:
    if not np.isfinite(value + norm):
        raise FloatingPointError(f"loss is {value} at step {len(curve.loss)}")
    curve.loss.append(value)
    curve.gradient_norm.append(norm)
