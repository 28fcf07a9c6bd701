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
from torch.utils._pytree import tree_map

from ..errors import ArgumentError, DataError, NumericsError
from ..operators.data import Batches
from ..operators.layout import Selection
from ..operators.ntk import NTK
from ..operators.snapshot import scalar
from .training_curve import TrainingCurve

_SIZES = (1.0, 10.0, 1000.0)  # of the displacements at which a loss must look quadratic


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
        model, loss, data, params, dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`; ``data`` is one batch
            ``(inputs, target)``, and ``loss(output, target)`` a scalar.
        held_out: inputs without targets on which to predict too, shaped like the training inputs.

    Attributes:
        start: f_0, shaped like the output. kernel: Θ, (M, M), M its entries. cross: Θ_xX, (m', M), or None.
        eigenvalues: of Θ, descending, (M,); those below M ε of the first are zero: the outputs cannot move along them.
        curvature: c; None for a loss that is not quadratic in this sense. It is found by measuring the loss's gradient.
        All float64, on the model's device.

    Cost: the kernel (see :class:`~lemmata.analysis.NTK`) and its eigenvectors, M³; with m held-out inputs kernels on the
    training inputs with pieces of at most N of the others. Memory for three (M, M) matrices and Θ_xX.

    Assumptions: full-batch training, a fixed rate. One rate for all parameters: Θ is that of their plain gradient.

    Errors: ``DataError`` for data that is no single batch, or held-out inputs that change the outputs of the others;
    ``LossError`` for a loss that is no finite scalar; those of the Jacobian.

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
        dtype: torch.dtype | None = None,
        batch_stats: str | None = None,
    ) -> None:
        inputs, target = _only_batch(data)
        options = (params, dtype, batch_stats)
        own = NTK(model, inputs, *options)
        J = own.jacobian
        ((_, target),) = Batches([(inputs, target)], J.dtype, J.device, cast=dtype is not None)
        self._loss, self._target, self._dtype = loss, target, J.dtype
        self.start, self.kernel = J.output.double(), own.dense().double()
        self.cross, self._held = None, None
        if held_out is not None:
            self.cross, self._held = _across(model, inputs, held_out, J.output, options)
        self._gradient = self._value_and_gradient(self.start)[1]
        self.curvature = self._curved()
        self._decompose(J.dtype)

    def _decompose(self, dtype: torch.dtype) -> None:
        """Θ = UΛUᵀ: its eigenvalues, and U√Λ without the modes that cannot move."""
        values, vectors = torch.linalg.eigh((self.kernel + self.kernel.T) / 2)
        floor = len(values) * torch.finfo(dtype).eps * float(values[-1].clamp(min=0))
        self.eigenvalues, vectors = torch.where(values > floor, values, 0.0).flip(0), vectors.flip(1)
        rank = int((self.eigenvalues > 0).sum())
        self._stretch, vectors = self.eigenvalues[:rank], vectors[:, :rank]
        self._basis = vectors * self._stretch.sqrt()  # U√Λ, what the outputs do; (Θ_xX) U/√Λ the held-out ones
        defect = (self.kernel - self._basis @ self._basis.T).norm() / self.kernel.norm()
        self._defect = float(defect) if rank else 0.0
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
        parameters. Any other loss is integrated by LSODA to a tenth of ``tol`` and again to a hundredth; the error is the
        gap between the two. Cost: a product with Θ for each evaluation.

        Errors: ``ArgumentError`` for times that do not ascend from 0, or inf where there is no closed form;
        ``NumericsError`` where the integration fails.
        """
        _ascending("times", times, self.curvature is not None)
        if self.curvature is not None:
            decay = self.curvature * self._stretch * self.start.new_tensor(times)[:, None]
            return self._curve(times, self._modes(-torch.expm1(-decay)), "closed form", self._defect, tol)
        rough, fine = (self._integrate(times, scale * tol) for scale in (0.1, 0.01))
        gap, moved = (float((path @ self._basis.T).norm(dim=1).max()) for path in (rough - fine, fine))
        return self._curve(times, fine, "LSODA", gap / moved if moved else 0.0, tol)

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
            path = self._modes(self._powers(steps, rate, momentum))
            return self._curve(steps, path, "closed form of steps", self._defect, 1e-6)
        rounding = torch.finfo(torch.float64).eps * (len(self.kernel) * max(1, steps[-1])) ** 0.5
        return self._curve(steps, self._iterate(steps, rate, momentum), "steps", rounding, 1e-6)

    def _modes(self, share: Tensor) -> Tensor:
        """The path of a quadratic loss, (T, r), from the share of its way to y that each mode has gone."""
        return share * (self._basis.T @ self._gradient.flatten()) / ((self.curvature or 1.0) * self._stretch)

    def _powers(self, steps: Sequence[int], rate: float, momentum: float) -> Tensor:
        """The share of its way that each mode has gone after k steps: powers of what maps (1 − share, ηv)."""
        z = rate * (self.curvature or 0.0) * self._stretch
        one = torch.stack([torch.stack([1 - z, -momentum + 0 * z], -1), torch.stack([z, momentum + 0 * z], -1)], -2)
        return torch.stack([1 - torch.linalg.matrix_power(one, k)[:, 0, 0] for k in steps])

    def _outputs(self, path: Tensor) -> Tensor:
        """f_0 − U√Λ s for s, (…, r)."""
        return self.start - (path @ self._basis.T).view(*path.shape[:-1], *self.start.shape)

    def _curve(self, times: Sequence[float], path: Tensor, method: str, error: float, tol: float) -> TrainingCurve:
        """The curve from s(t), (T, r): the parameters' displacement in an orthonormal basis of the rows of J."""
        outputs, held = self._outputs(path), None
        if not bool(outputs.isfinite().all()):
            remedy = f"Stay below 2 (1 + μ) / (c λ₁), λ₁ = {float(self.eigenvalues[0]):.4g}, c = {self.curvature}."
            raise NumericsError("rate", "steps that stay finite", f"outputs that overflow by {times[-1]}", remedy)
        if self._held is not None:
            held = (self._held - (path @ self._across.T).view(len(path), *self._held.shape)).cpu()
        losses = torch.stack([self._value_and_gradient(f)[0] for f in outputs])
        at = torch.tensor([float(t) for t in times], dtype=torch.float64, device="cpu")
        travel = path.norm(dim=1).cpu()
        return TrainingCurve(at, outputs.cpu(), losses.cpu(), held, travel, method, error, error <= tol)

    def _value_and_gradient(self, output: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = output.detach().to(self._dtype).clone().requires_grad_()
            value = scalar(self._loss(leaf, self._target), "data", "loss")
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach().double(), gradient.double()

    def _curved(self) -> float | None:
        """The c where the loss has the Hessian c I in the outputs, as far as its gradient shows; else None."""
        draws = torch.Generator().manual_seed(0)
        found = []
        for size in _SIZES:
            d = torch.randn(self.start.shape, generator=draws, dtype=torch.float64, device="cpu").to(self.start.device)
            d = d * size * float(self.start.norm().clamp(min=1.0) / d.norm())
            bent = self._value_and_gradient(self.start + d)[1] - self._gradient
            c = float((bent * d).sum() / (d * d).sum())
            slack = 1e3 * torch.finfo(self._dtype).eps * (float(self._gradient.norm()) + abs(c) * float(d.norm()))
            if not c > 0 or not float((bent - c * d).norm()) <= slack:
                return None
            found.append(c)
        return found[-1] if max(found) - min(found) <= 1e3 * torch.finfo(self._dtype).eps * max(found) else None

    def _slope(self, path: Tensor) -> Tensor:
        """√Λ Uᵀ∇_f L, (r,): how training moves s, which the outputs fall with."""
        return self._basis.T @ self._value_and_gradient(self._outputs(path))[1].flatten()

    def _integrate(self, times: Sequence[float], tol: float) -> Tensor:
        """s(t), (T, r), by LSODA; a displacement counts once it moves an output by tol of the larger of its start and 1."""
        device, last = self.start.device, float(times[-1])
        if last == 0 or not len(self._stretch):
            return self.start.new_zeros(len(times), len(self._stretch))
        least = tol * max(1.0, float(self.start.abs().max())) / float(self._stretch[0]) ** 0.5

        def speed(t: float, s: np.ndarray) -> np.ndarray:
            return self._slope(torch.from_numpy(s).to(device)).cpu().numpy()

        begin = np.zeros(len(self._stretch))
        found = solve_ivp(speed, (0.0, last), begin, "LSODA", t_eval=list(times), rtol=tol, atol=least)
        if not found.success:
            remedy = "Ask for a larger tol or earlier times, or use descent."
            raise NumericsError("times", "an integration that reaches the last", found.message, remedy)
        return torch.from_numpy(found.y.T.copy()).to(device)

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
    if isinstance(data, tuple | list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, tuple | list) or len(data) != 2:
        given = f"{type(data).__name__} of {len(data)}" if hasattr(data, "__len__") else type(data).__name__
        remedy = "Full-batch training needs all examples at once: pass one batch, the tensors joined."
        raise DataError("data", "one batch (inputs, target)", given, remedy)
    return data[0], data[1]


def _across(model: nn.Module, inputs: Any, others: Any, output: Tensor, options: Any) -> tuple[Tensor, Tensor]:
    """The kernel between held-out and training inputs, (m', M), and the held-out outputs, in pieces of N inputs."""
    n, rows, outputs = len(output), [], []
    for start in range(0, _length(others), n):
        piece = tree_map(lambda item, start=start: _rows(item, slice(start, start + n)), others)
        kernel = NTK(model, _joined(inputs, piece), *options)
        found = kernel.jacobian.output
        if not float((found[:n] - output).norm()) <= 10 * torch.finfo(output.dtype).eps ** 0.5 * float(output.norm()):
            remedy = "Use a model that treats every input by itself, or leave held_out out."
            raise DataError("held_out", "inputs that do not change the others' outputs", "inputs that do", remedy)
        rows.append(kernel.dense()[output.numel() :, : output.numel()].double())
        outputs.append(found[n:].double())
    return torch.cat(rows), torch.cat(outputs)


def _length(inputs: Any) -> int:
    tensors = [t for t in torch.utils._pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.ndim]
    if not tensors or not len(tensors[0]):
        given = "an empty tensor" if tensors else type(inputs).__name__
        raise DataError("held_out", "at least one input", given, "Pass inputs shaped like the training ones, or None.")
    return len(tensors[0])


def _rows(item: Any, chosen: slice) -> Any:
    return item[chosen] if isinstance(item, Tensor) and item.ndim else item


def _joined(inputs: Any, others: Any) -> Any:
    try:
        return tree_map(lambda a, b: torch.cat([a, b]) if isinstance(a, Tensor) and a.ndim else a, inputs, others)
    except (RuntimeError, TypeError, ValueError) as error:
        remedy = "Give both the same structure, trailing shapes, dtype and device."
        raise DataError("held_out", "inputs like the training ones", str(error).splitlines()[0], remedy) from error


def _ascending(name: str, values: Sequence[float], infinite: bool) -> None:
    numbers = [float(v) for v in values]
    in_order = all(a <= b for a, b in zip([0.0, *numbers], numbers, strict=False))
    if not numbers or not in_order or (not infinite and not isfinite(numbers[-1])):
        expected = f"{'numbers' if infinite else 'finite numbers'} that ascend from 0"
        raise ArgumentError(
            name, expected, repr(list(values)), f"Sort them; the closed forms alone take inf as {name}."
        )
