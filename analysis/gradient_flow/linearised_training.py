"""What training would do to the model's linearisation: the curve that the tangent kernel at its start predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, NumericsError
from ..operators.data import _is_batch
from ..operators.layout import Selection
from ..operators.ntk import NTK
from .held_out import kernel_across
from .output_loss import OutputLoss
from .training_curve import TrainingCurve

_EPS = torch.finfo(torch.float64).eps
_MOST = 20_000  # evaluations of one integration; a smooth loss takes a thousand or two


class LinearisedTraining:
    r"""Full-batch training of a model's linearisation at its parameters, in the space of its outputs.

    .. math:: f_{\mathrm{lin}}(\theta) = f_0 + J_0 (\theta - \theta_0), \qquad
        \dot f = -\Theta \nabla_f L(f), \qquad f_x(t) = f_x(0) - \Theta_{xX}\, q(t), \quad q = \int_0^t \nabla_f L(f)\, ds

    with Θ = J₀J₀ᵀ on the training inputs X. Where the loss is quadratic with Hessian c I in the outputs, as the squared
    error is, everything is closed in the eigenbasis of Θ, with y the outputs of least loss:

    .. math:: f(t) = y + e^{-c \Theta t} (f_0 - y), \qquad f_k = y + (1 - \eta c \Theta)^k (f_0 - y)

    Any other differentiable loss, cross-entropy for one, is integrated or stepped. This is what a network does whose kernel
    does not move: an infinitely wide one in the tangent-kernel parametrisation, or a lazy one.

    Args:
        model, loss, data, params, batch_stats: as for :class:`~lemmata.analysis.Hessian`; ``data`` is one batch
            ``(inputs, target)``, and ``loss(output, target)`` a scalar. Outputs and floating targets reach it in float64.
        held_out: inputs without targets on which to predict too, shaped like the training inputs. A tensor that has no row
            for each example is shared by all of them and must be the same in both.
        dtype: in which outputs and kernel are computed, on a cast copy; None for the model's own. The small eigenvalues,
            which late times depend on, drown in the rounding of float32.

    Attributes:
        start: f_0, shaped like the output. kernel: Θ, (M, M), M its entries. cross: Θ_xX, (m', M), or None.
        eigenvalues: of Θ, descending, (M,); those below M ε of the first, ε of ``dtype``, are zero: they count as unmoved.
        curvature: c; None for a loss that is not quadratic in this sense. It is found by measuring the loss's gradient.
        All float64, on the model's device.

    Cost: the kernel (see :class:`~lemmata.analysis.NTK`) and its eigenvectors, M³; with m held-out inputs kernels on the
    training inputs with pieces of at most N of the others. Memory for three (M, M) matrices and Θ_xX.

    Assumptions: full-batch training, a fixed rate. One rate for all parameters: Θ is that of their plain gradient.

    Accuracy: a curve's ``error`` adds up, to first order and for a convex loss, what rounding by √M ε λ₁ of Θ does to the
    outputs, what modes below M ε λ₁ might have moved (unless they are zero for want of parameters), ε ‖f_0‖, and the
    error of the integration. Late times of an ill-conditioned kernel are therefore not converged.

    Errors: ``DataError`` for data that is no single batch, or held-out inputs that change the outputs of the others;
    ``LossError`` for a loss that is no finite scalar or has no slope in the outputs; those of the Jacobian.

    Source: Jacot, Gabriel & Hongler 2018, Neural tangent kernel; Lee et al. 2019, Wide neural networks of any depth evolve
    as linear models under gradient descent.

    Example:
        A linear model is its own linearisation. Half the squared error of one example, x = 2, has Θ = 4:

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> half = lambda output, target: 0.5 * (output - target).square().mean()
        >>> training = LinearisedTraining(model, half, (torch.tensor([[2.0]]), torch.ones(1, 1)), torch.tensor([[3.0]]))
        >>> training.descent([0, 1, 2], rate=0.125).outputs.flatten().tolist()  # 1 − (1 − 4/8)^k
        [0.0, 0.5, 0.75]
        >>> training.flow([float("inf")]).held_out.flatten().tolist()  # y x/2
        [1.5]

    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        data: Any,
        held_out: Any = None,
        params: Selection = "*",
        dtype: torch.dtype | None = torch.float64,
        batch_stats: str | None = None,
    ) -> None:
        inputs, target = _only_batch(data)
        options = (params, dtype, batch_stats)
        own = NTK(model, inputs, *options)
        J = own.jacobian
        self._loss, self._eps = OutputLoss(loss, target, J.device), torch.finfo(J.dtype).eps
        self.start, self.kernel = J.output.double(), own.dense().double()
        self.cross, self._held = None, None
        if held_out is not None:
            self.cross, self._held = kernel_across(model, inputs, held_out, J.output, options)
        self._gradient = self._loss.gradient(self.start)
        self.curvature = self._loss.curvature(self.start)
        self._decompose(J.shape[1])

    def _decompose(self, parameters: int) -> None:
        """Θ = UΛUᵀ: its eigenvalues, U√Λ without the modes that count as unmoved, and those that rounding may hide."""
        values, vectors = torch.linalg.eigh((self.kernel + self.kernel.T) / 2)
        unit = self._eps * float(values[-1].clamp(min=0))
        self._floor, self._slack = len(values) * unit, len(values) ** 0.5 * unit
        self.eigenvalues, vectors = torch.where(values > self._floor, values, 0.0).flip(0), vectors.flip(1)
        rank = int((self.eigenvalues > 0).sum())
        self._hidden = vectors[:, rank:] if 0 < rank < min(len(values), parameters) else vectors[:, :0]
        self._stretch, vectors = self.eigenvalues[:rank], vectors[:, :rank]
        self._basis = vectors * self._stretch.sqrt()  # U√Λ, what the outputs do; (Θ_xX) U/√Λ the held-out ones
        if self.cross is not None:
            self._across = self.cross @ (vectors / self._stretch.sqrt())

    def __repr__(self) -> str:
        kind = "another loss" if self.curvature is None else f"squared error, c = {self.curvature:.4g}"
        rank = len(self._stretch)
        top = f"largest eigenvalue {float(self.eigenvalues[0]):.4g}"
        return f"LinearisedTraining({len(self.kernel)} outputs, rank {rank}, {top}, {kind})"

    def flow(self, times: Sequence[float], tol: float = 1e-6) -> TrainingCurve:
        r"""Gradient flow :math:`\dot\theta = -\nabla L` of the linearised model at the given times.

        Closed for the squared error, where a time may be inf: kernel regression, with the smallest change of the
        parameters. Any other loss is integrated by LSODA to a tenth of ``tol`` and again to a hundredth; the gap between
        the two is part of the error. Cost: a product with Θ for each evaluation, of at most 20 000 in one integration.

        Errors: ``ArgumentError`` for times that do not ascend from 0, or inf where there is no closed form;
        ``NumericsError`` where the integration fails or takes too many evaluations, as it does for a loss with kinks.
        """
        times = [float(t) for t in times]
        _ascending("times", times, self.curvature is not None)
        if self.curvature is not None:
            t, c = self.start.new_tensor(times)[:, None], self.curvature

            def share(eigenvalues: Tensor) -> Tensor:
                return -torch.expm1(-c * eigenvalues * t)

            return self._curve(times, self._modes(share(self._stretch)), "closed form", self._uncertain(share), tol)
        rough, fine = (self._integrate(times, scale * tol) for scale in (0.1, 0.01))
        gap, moved = (float((path @ self._basis.T).norm(dim=1).max()) for path in (rough - fine, fine))
        error = (gap + self._rounding(fine, times[-1])) / moved if moved else 0.0
        return self._curve(times, fine, "LSODA", error, tol)

    def descent(self, steps: Sequence[int], rate: float, momentum: float = 0.0) -> TrainingCurve:
        r"""Gradient descent on the linearised model: the outputs after the given numbers of steps.

        .. math:: v \leftarrow \mu v + \nabla L, \qquad \theta \leftarrow \theta - \eta v

        as ``torch.optim.SGD`` has it. Closed for the squared error, by powers of a 2 × 2 matrix for each mode; a rate above
        2 (1 + μ) / (c λ₁) diverges. For any other loss every step is taken, at a product with Θ each.

        Errors: ``ArgumentError`` for steps that do not ascend from 0, a rate that is not positive, a momentum outside [0, 1).
        """
        _ascending("steps", steps, False)
        if not all(isinstance(k, Integral) for k in steps):
            raise ArgumentError("steps", "integers", repr(list(steps)), "Count whole steps; flow takes times.")
        steps = [int(k) for k in steps]
        if not 0 < rate < float("inf"):
            raise ArgumentError("rate", "a finite number > 0", repr(rate), "Pass the optimiser's learning rate.")
        if not 0 <= momentum < 1:
            raise ArgumentError("momentum", "a number in [0, 1)", repr(momentum), "Leave momentum out for none.")
        if self.curvature is not None:

            def share(eigenvalues: Tensor) -> Tensor:
                return self._powers(eigenvalues, steps, rate, momentum)

            path = self._modes(share(self._stretch))
            return self._curve(steps, path, "closed form of steps", self._uncertain(share), 1e-6)
        path = self._iterate(steps, rate, momentum)
        moved = float((path @ self._basis.T).norm(dim=1).max())
        error = self._rounding(path, rate * steps[-1] / (1 - momentum)) / moved if moved else 0.0
        error += _EPS * (len(self.kernel) * max(1, steps[-1])) ** 0.5
        return self._curve(steps, path, "steps", error, 1e-6)

    def _modes(self, share: Tensor) -> Tensor:
        """The path of a quadratic loss, (T, r), from the share of its way to y that each mode has gone."""
        return share * (self._basis.T @ self._gradient.flatten()) / ((self.curvature or 1.0) * self._stretch)

    def _uncertain(self, share: Callable[[Tensor], Tensor]) -> float:
        """The error of a closed form, relative to the movement: rounding of Θ and of f_0, and modes that it hides."""
        stretch, gradient, c = self._stretch, self._gradient.flatten(), self.curvature or 1.0
        way = self._basis.T @ gradient / (c * stretch.sqrt())
        turned = share(stretch + self._slack) - share((stretch - self._slack).clamp(min=0))
        wrong, moved = (float((part * way).norm(dim=1).max()) for part in (turned, share(stretch)))
        if self._hidden.shape[1]:
            most = share(stretch.new_tensor([self._floor + self._slack])).abs().max()
            wrong += float(most * (self._hidden.T @ gradient).norm() / c)
        wrong += self._eps * float(self.start.norm())
        return wrong / moved + _EPS * len(self.kernel) ** 0.5 if moved else 0.0

    def _rounding(self, path: Tensor, span: float) -> float:
        """The error of any other path, in the outputs: what rounding moves along q = ∫∇L, and modes that it hides."""
        wrong = self._slack * float((path / self._stretch.sqrt()).norm(dim=1).max())
        if self._hidden.shape[1]:
            slopes = [self._gradient, *(self._loss(f)[1] for f in self._outputs(path))]
            steepest = max(float((self._hidden.T @ slope.flatten()).norm()) for slope in slopes)
            wrong += (self._floor + self._slack) * span * steepest
        return wrong + self._eps * float(self.start.norm())

    def _powers(self, eigenvalues: Tensor, steps: Sequence[int], rate: float, momentum: float) -> Tensor:
        """The share of its way that each mode has gone after k steps: powers of what maps (1 − share, ηv)."""
        z = rate * (self.curvature or 0.0) * eigenvalues
        one = torch.stack([torch.stack([1 - z, -momentum + 0 * z], -1), torch.stack([z, momentum + 0 * z], -1)], -2)
        return torch.stack([1 - torch.linalg.matrix_power(one, k)[:, 0, 0] for k in steps])

    def _outputs(self, path: Tensor) -> Tensor:
        """f_0 − U√Λ s for s, (…, r)."""
        return self.start - (path @ self._basis.T).view(*path.shape[:-1], *self.start.shape)

    def _curve(self, times: Sequence[float], path: Tensor, method: str, error: float, tol: float) -> TrainingCurve:
        """The curve from s(t), (T, r): the parameters' displacement in an orthonormal basis of the rows of J."""
        outputs, held = self._outputs(path), None
        losses = torch.stack([self._loss(f)[0] for f in outputs])
        if not bool(outputs.isfinite().all() and losses.isfinite().all()):
            remedy = f"Stay below 2 (1 + μ) / (c λ₁), λ₁ = {float(self.eigenvalues[0]):.4g}, c = {self.curvature}."
            raise NumericsError("rate", "steps that stay finite", f"outputs that overflow by {times[-1]}", remedy)
        if self._held is not None:
            held = (self._held - (path @ self._across.T).view(len(path), *self._held.shape)).cpu()
        at = torch.tensor([float(t) for t in times], dtype=torch.float64, device="cpu")
        travel = path.norm(dim=1).cpu()
        return TrainingCurve(at, outputs.cpu(), losses.cpu(), held, travel, method, error, error <= tol)

    def _slope(self, path: Tensor) -> Tensor:
        """√Λ Uᵀ∇_f L, (r,): how training moves s, which the outputs fall with."""
        return self._basis.T @ self._loss(self._outputs(path))[1].flatten()

    def _integrate(self, times: Sequence[float], tol: float) -> Tensor:
        """s(t), (T, r), by LSODA; a displacement counts once it moves an output by tol of the larger of its start and 1."""
        device, last = self.start.device, float(times[-1])
        if last == 0 or not len(self._stretch):
            return self.start.new_zeros(len(times), len(self._stretch))
        least = tol * max(1.0, float(self.start.abs().max())) / float(self._stretch[0]) ** 0.5

        evaluations = 0

        def speed(t: float, s: np.ndarray) -> np.ndarray:
            nonlocal evaluations
            evaluations += 1
            slope = self._slope(torch.from_numpy(s).to(device)).cpu().numpy()
            if evaluations > _MOST or not np.isfinite(slope).all():
                given = f"a slope of {slope.max()}" if evaluations <= _MOST else f"more than {_MOST} by t = {t:.4g}"
                remedy = "Ask for a larger tol or earlier times, smooth the loss, or use descent."
                raise NumericsError("times", "finite slopes at a bounded number of evaluations", given, remedy)
            return slope

        distinct, place = np.unique(np.array(times), return_inverse=True)
        begin = np.zeros(len(self._stretch))
        found = solve_ivp(speed, (0.0, last), begin, "LSODA", t_eval=distinct, rtol=tol, atol=least)
        if not found.success:
            remedy = "Ask for a larger tol or earlier times, or use descent."
            raise NumericsError("times", "an integration that reaches the last", found.message, remedy)
        return torch.from_numpy(found.y.T[place.ravel()]).to(device)

    def _iterate(self, steps: Sequence[int], rate: float, momentum: float) -> Tensor:
        """The path s after the given numbers of steps, (T, r), each taken."""
        s, v = (self.start.new_zeros(len(self._stretch)) for _ in range(2))
        kept = []
        for begin, end in pairwise([0, *steps]):
            for _ in range(end - begin):
                v = momentum * v + self._slope(s)
                s = s + rate * v
            kept.append(s)
        return torch.stack(kept)


def _only_batch(data: Any) -> tuple[Any, Any]:
    alone = isinstance(data, tuple | list) and len(data) == 1
    batch = data[0] if alone else data
    if not _is_batch(batch) and not (alone and isinstance(batch, tuple | list) and len(batch) == 2):
        given = f"{type(data).__name__} of {len(data)}" if hasattr(data, "__len__") else type(data).__name__
        remedy = "Full-batch training needs all examples at once: pass one batch, the tensors joined."
        raise DataError("data", "one batch (inputs, target)", given, remedy)
    return batch[0], batch[1]


def _ascending(name: str, values: Sequence[float], infinite: bool) -> None:
    numbers = [float(v) for v in values]
    in_order = all(a <= b for a, b in zip([0.0, *numbers], numbers, strict=False))
    if not numbers or not in_order or (not infinite and not isfinite(numbers[-1])):
        expected = f"{'numbers' if infinite else 'finite numbers'} that ascend from 0"
        raise ArgumentError(
            name, expected, repr(list(values)), f"Sort them; the closed forms alone take inf as {name}."
        )
