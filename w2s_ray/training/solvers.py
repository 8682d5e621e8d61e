"""Heads trained to the minimum: the mean objective over all rows, in float64, without batches.

Training by batches stops when its steps are used up; statements of theory about a minimiser need
an actual one. Both solvers lower the objective at every step, even where it is not convex.

* ``newton``: the Hessian in the weights, from second derivatives of the objective by the logits,
  with Levenberg's damping: a step that does not lower the objective is retried with ten times the
  damping, and one that does lowers the damping.
* ``lbfgs``: scipy's L-BFGS-B, for heads whose Hessian would be too large.

Logits matter only up to a constant, so class 0 is fixed at 0 and the weights of the K classes are
centred at the end: of all equal solutions that is the smallest, and the one that gradient steps
from zero would reach.

Hard labels that a linear rule separates have no minimiser: the loss falls for ever. A small
gradient does not detect that case, but the Newton step does: it never becomes small. So
``converged`` requires both to be small.
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.objectives.divergence import loss
from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.training.head_job import HeadJob, TrainedHead
from w2s_ray.training.loop import Curve

SOLVERS = ("newton", "lbfgs")
MAX_ITERATIONS = {"newton": 100, "lbfgs": 2000}
GRADIENT_TOLERANCE = 1e-7
"""Norm of the gradient, in nats per unit of a standardised weight."""
STEP_TOLERANCE = 1e-3
"""Norm of the remaining Newton step, as a share of 1 + the weights' norm."""
GRADIENT_FLOOR = 1e-11
"""If the gradient is below this and the Newton step is still long, there is no minimum."""
NEWTON_PARAMETERS = 6000
"""With more parameters the Hessian alone takes 0.3 GB and its factorisation many seconds."""
LEAST_DAMPING, MOST_DAMPING = 1e-12, 1e12
"""Bounds of the damping, as a share of the mean curvature of the coordinates."""


def solve(rows: Tensor, job: HeadJob, outputs: int) -> TrainedHead:
    """Minimises the job's objective over all rows, starting from a head at zero.

    Args:
        rows: (n, P) float64, standardised; with a column of 1 where there is a bias.
        outputs: of the head: 1 for pairs, else K.

    Returns:
        The head with the facts solver, iterations, gradient_norm, converged and final_loss. Its
        curve holds the loss and the gradient's norm before each iteration and after the last;
        learning rates and α are 0.

    Raises:
        ValueError: an unknown solver; confidence regularisation or a loss whose target changes with
            the student; too many parameters for newton.
        FloatingPointError: the loss is not finite at the start.
    """
    if job.solver not in SOLVERS:
        raise ValueError(f"solver {job.solver!r} is not one of sgd, {', '.join(SOLVERS)}")
    if job.objective.confidence_weight:
        raise ValueError(
            f"solver {job.solver} with confidence_weight {job.objective.confidence_weight}:"
            " the student's own guesses change the objective as it learns; 0 or sgd expected"
        )
    if DEFINITIONS[job.objective.loss].moves_target:
        raise ValueError(
            f"solver {job.solver} with loss {job.objective.loss}:"
            " its target changes with the student; another loss or sgd expected"
        )
    started = time.monotonic()
    problem = _Problem(rows, job, outputs)
    if job.solver == "newton" and problem.size > NEWTON_PARAMETERS:
        raise ValueError(
            f"solver newton with {problem.size} parameters: at most {NEWTON_PARAMETERS}"
            " expected; use lbfgs"
        )
    curve = Curve()
    minimise = _newton if job.solver == "newton" else _lbfgs
    theta, converged = minimise(problem, curve)
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
    return TrainedHead(weights.float(), curve, facts)


def _at_minimum(theta: Tensor, gradient: Tensor, step: Tensor | None) -> bool:
    """Whether gradient and Newton step are small.

    Args:
        step: the Newton step from ``theta``; None: the Hessian there is not positive definite.
    """
    if step is None or float(gradient.norm()) > GRADIENT_TOLERANCE:
        return False
    return float(step.norm()) <= STEP_TOLERANCE * (1.0 + float(theta.norm()))


class _Problem:
    """The objective as a function of weights θ, (free · P,); logits of class 0 are fixed at 0.

    It is the mean over rows, and with an anchor λ/2 times the squared norm of the head's weights:
    where it has weights of all classes of their centred ones, Σ_k |θ_k|² - |Σ_k θ_k|²/K.

    Attributes:
        rows: (n, P) float64.
        free: K − 1, the classes that have weights.
        size: free · P, the number of weights.
    """

    def __init__(self, rows: Tensor, job: HeadJob, outputs: int) -> None:
        self.rows = rows
        self._soft_labels = torch.from_numpy(job.soft_labels).double()
        self._weights = None if job.weights is None else torch.from_numpy(job.weights).double()
        self._objective = job.objective
        self._anchor = job.adam.anchor
        self._centring = 1.0 / outputs if outputs > 1 else 0.0
        self.free = self._soft_labels.shape[1] - 1
        self.size = self.free * rows.shape[1]

    def value(self, theta: Tensor) -> float:
        """The objective, in nats."""
        with torch.no_grad():
            return float(self._mean(self._scores(theta)) + 0.5 * theta @ self._pull(theta))

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """Value and gradient (size,)."""
        scores = self._scores(theta).requires_grad_()
        value = self._mean(scores)
        (slopes,) = torch.autograd.grad(value, scores)
        pull = self._pull(theta)
        value = value.detach() + 0.5 * theta @ pull
        return float(value), (slopes.T @ self.rows).flatten() + pull

    def curvature(self, theta: Tensor) -> tuple[float, Tensor, Tensor]:
        """Value, gradient (size,) and Hessian (size, size).

        A row's loss depends on its own logits only, so the second derivatives by the logits of all
        rows take one more backward pass per class.
        """
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
        pull = self._pull(theta)
        gradient = (slopes.detach().T @ self.rows).flatten() + pull
        hessian = (hessian + hessian.T) / 2
        if self._anchor:
            classes = torch.eye(self.free, dtype=theta.dtype) - self._centring
            width = torch.eye(self.rows.shape[1], dtype=theta.dtype)
            hessian += self._anchor * torch.kron(classes, width)
        return float(value.detach() + 0.5 * theta @ pull), gradient, hessian

    def newton_step(self, theta: Tensor, gradient: Tensor) -> Tensor | None:
        """-H⁻¹ g by conjugate gradients, without H; None if a curvature is not positive."""
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
            pull = self._pull(direction)
            curvature = float((second * along).sum() + direction @ pull)
            if curvature <= 0.0:
                return None
            step = step + size / curvature * direction
            bent = (second.T @ self.rows).flatten() + pull
            residual = residual - size / curvature * bent
            direction = residual + float(residual @ residual) / size * direction
        return step

    def _pull(self, theta: Tensor) -> Tensor:
        """The anchor's gradient (size,), linear in the weights."""
        weights = theta.view(self.free, -1)
        return self._anchor * (weights - self._centring * weights.sum(dim=0)).flatten()

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
            deciding=self._soft_labels,
            **dict(objective.loss_parameters),
        )
        return losses.mean() if self._weights is None else (self._weights * losses).mean()


def _newton(problem: _Problem, curve: Curve) -> tuple[Tensor, bool]:
    """The weights, and whether they are a minimum."""
    theta = torch.zeros(problem.size, dtype=torch.float64)
    damping = 1e-3
    while True:
        value, gradient, hessian = problem.curvature(theta)
        _record(curve, value, float(gradient.norm()))
        scale = float(hessian.diagonal().abs().mean())
        newton_step = _damped_step(hessian, gradient, scale * LEAST_DAMPING)
        converged = _at_minimum(theta, gradient, newton_step)
        exhausted = len(curve.loss) > MAX_ITERATIONS["newton"]
        if converged or exhausted or curve.gradient_norm[-1] < GRADIENT_FLOOR:
            return theta, converged
        while True:
            step = _damped_step(hessian, gradient, scale * damping)
            if step is not None and problem.value(theta + step) < value:
                theta = theta + step
                damping = max(damping / 10.0, LEAST_DAMPING)
                break
            damping *= 10.0
            if damping > MOST_DAMPING:  # no step lowers the objective within float64
                return theta, converged


def _damped_step(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor | None:
    """-(H + damping I)⁻¹ g, or None if that matrix is not positive definite."""
    damped = hessian.clone()
    damped.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        return None
    return -torch.cholesky_solve(gradient[:, None], factor)[:, 0]


class _Recorded:
    """The problem as scipy calls it; adds the last evaluation of each iteration to the curve."""

    def __init__(self, problem: _Problem, curve: Curve) -> None:
        self._problem, self._curve = problem, curve
        self._value = self._norm = 0.0

    def evaluate(self, theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient."""
        self._value, gradient = self._problem.gradient(torch.from_numpy(theta))
        self._norm = float(gradient.norm())
        return self._value, gradient.numpy()

    def record(self, xk: NDArray[np.float64]) -> None:
        """Records the last evaluation; called with the weights at the end of an iteration."""
        _record(self._curve, self._value, self._norm)


def _lbfgs(problem: _Problem, curve: Curve) -> tuple[Tensor, bool]:
    """The weights, and whether they are a minimum."""
    recorded = _Recorded(problem, curve)
    start = np.zeros(problem.size)
    recorded.evaluate(start)
    recorded.record(start)
    from scipy.optimize import minimize  # a quarter of a second to import, and rarely needed

    # gtol bounds the largest entry; the norm is at most the root of their number times that.
    tolerance = 0.1 * GRADIENT_TOLERANCE / np.sqrt(problem.size)
    most = MAX_ITERATIONS["lbfgs"]
    result = minimize(
        recorded.evaluate,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=recorded.record,
        options={"maxiter": most, "maxfun": 4 * most, "maxcor": 20, "ftol": 0.0, "gtol": tolerance},
    )
    theta, gradient = torch.from_numpy(result.x.copy()), torch.from_numpy(result.jac.copy())
    return theta, _at_minimum(theta, gradient, problem.newton_step(theta, gradient))


def _record(curve: Curve, value: float, norm: float) -> None:
    if not np.isfinite(value + norm):
        raise FloatingPointError(f"loss is {value} at step {len(curve.loss)}")
    curve.loss.append(value)
    curve.gradient_norm.append(norm)
