"""The Jacobian of a model's outputs with respect to its parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import LossError, OperandError
from .base import Plan
from .data import call, fit
from .differentiable import Differentiable
from .engine import flat, no_slow_vmap
from .export import as_linear_operator
from .layout import Layout, Selection, out_of_reach
from .linearised import Linearised
from .memory import graph_bytes
from .per_example import Recorder
from .snapshot import Watch, choose, leaves, snapshot

_BLOCK = 32  # products at a time


class Jacobian:
    r"""The Jacobian of a model's output over one batch of inputs, bound to the parameters at construction.

    .. math:: J = \frac{\partial f(\theta; X)}{\partial \theta}

    Args:
        model: any ``nn.Module`` that returns one tensor. It is copied and never changed.
        inputs: what the model is called with: a tensor, a tuple of arguments, or a mapping of keywords.
        params, dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`.

    Shapes: (M, P), M the number of entries of the output, in its own order, and P that of the chosen parameters:
    ``J @ v`` takes (P,) to (M,) and (P, k) to (M, k); ``J.T @ u`` takes (M,) to (P,) and (M, k) to (P, k).

    Cost: construction about 2 gradients, whose graph is kept. A product with J or Jᵀ about 2/3 of a gradient.

    Errors: a :class:`~lemmata.analysis.errors.LemmataError` that names the culprit and the remedy.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> J = Jacobian(model, torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
        >>> J @ torch.tensor([1.0, 1.0])
        tensor([1., 3.])
        >>> J.T @ torch.tensor([1.0, 1.0])
        tensor([2., 2.])

    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        params: Selection = "*",
        dtype: torch.dtype | None = None,
        batch_stats: str | None = None,
    ) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            private, self.batch_stats = snapshot(model, dtype, batch_stats)
            parameters = leaves(choose(private, params))
            self.layout = Layout(tuple(parameters), tuple(tuple(t.shape) for t in parameters.values()))
            reference = next(iter(parameters.values()))
            self.dtype, self.device = reference.dtype, reference.device
            given = fit(inputs, "inputs", self.dtype, self.device, cast=dtype is not None)
            buffers, fixed = dict(private.named_buffers()), dict[str, Tensor](private.named_parameters())
            watch, switched = Watch("model", buffers, fixed, self.device), set[str]()
            self._call, self._given, self._parameters = partial(functional_call, private), given, parameters
            with Differentiable(switched), Recorder(list(parameters.values())) as recorder:
                output = call(lambda *a, **k: self._call(parameters, a, k), given)
            watch.check(lambda: call(lambda *a, **k: self._call(parameters, a, k), given))
            self._output, self._uses = self._checked(output), recorder.uses
            self._linearised = Linearised([self._output], list(parameters.values()))

    def _checked(self, output: Any) -> Tensor:
        remedy = "Wrap the model in a module that returns one tensor, computed from the chosen parameters."
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise LossError("output", "one floating-point tensor", type(output).__name__, remedy)
        if not output.requires_grad:
            raise LossError("output", "a tensor that depends on the parameters", "one detached from them", remedy)
        if not bool(output.isfinite().all()):
            raise LossError("output", "finite entries", "inf or nan", "Look at the inputs and the parameters.")
        return output

    @property
    def shape(self) -> tuple[int, int]:
        """(M, P)."""
        return self._output.numel(), self.layout.size

    @property
    def output(self) -> Tensor:
        """The model's output at the bound parameters."""
        return self._output.detach().clone()

    @property
    def T(self) -> TransposedJacobian:
        """The transpose, (P, M)."""
        return TransposedJacobian(self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return _product(other, self.shape[1], self.dtype, self.device, self._push)

    @property
    def unreached(self) -> tuple[str, ...]:
        """The chosen parameters that the output does not depend on; their columns are zero."""
        return tuple(name for i, name in enumerate(self.layout.names) if i not in self._linearised.active)

    def __repr__(self) -> str:
        notes = f"{self.shape[0]} × {self.shape[1]}, {self.dtype}, {self.device}"
        return f"Jacobian({notes}{out_of_reach('output', self.unreached)})"

    def _push(self, rows: Tensor) -> Tensor:
        """(k, P) → (k, M)."""
        k, pieces = len(rows), self.layout.pieces(rows if len(rows) > 1 else rows[0])
        with no_slow_vmap():
            return self._linearised.push(pieces, k > 1)[0].reshape(k, -1)

    def _pull(self, rows: Tensor) -> Tensor:
        """(k, M) → (k, P)."""
        k = len(rows)
        given = rows.reshape(k, *self._output.shape) if k > 1 else rows.reshape(self._output.shape)
        with no_slow_vmap():
            return flat(self._linearised.pull([given], k > 1), self._linearised.theta, k)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A flat vector (P,) as a dictionary of tensors by parameter name."""
        return self.layout.split(vector)

    def plan(self, k: int = 1) -> Plan:
        """Products with J, their seconds (one is timed here), and the bytes of the graph and of a block of vectors."""
        return _plan(self, "Jacobian", self, k)

    def to_scipy(self) -> LinearOperator:
        """A ``scipy.sparse.linalg.LinearOperator`` on NumPy arrays, whose adjoint is Jᵀ."""
        return as_linear_operator(self, self.T)

    def dense(self, block: int = _BLOCK) -> Tensor:
        """The matrix (M, P), from M products with Jᵀ taken ``block`` at a time."""
        eye = torch.eye(self.shape[0], dtype=self.dtype, device=self.device)
        return torch.cat([self._pull(rows) for rows in eye.split(block)])


class TransposedJacobian:
    """Jᵀ of a :class:`Jacobian`, (P, M)."""

    def __init__(self, jacobian: Jacobian) -> None:
        self.T, self.dtype, self.device = jacobian, jacobian.dtype, jacobian.device
        self.shape = jacobian.shape[::-1]

    def __matmul__(self, other: Tensor) -> Tensor:
        return _product(other, self.shape[1], self.dtype, self.device, self.T._pull)

    def plan(self, k: int = 1) -> Plan:
        """Products with Jᵀ, as for :meth:`Jacobian.plan`."""
        return _plan(self, "Jacobian.T", self.T, k)

    def to_scipy(self) -> LinearOperator:
        """A ``scipy.sparse.linalg.LinearOperator`` on NumPy arrays, whose adjoint is J."""
        return as_linear_operator(self, self.T)

    def dense(self, block: int = _BLOCK) -> Tensor:
        """The matrix (P, M)."""
        return self.T.dense(block).T

    def __repr__(self) -> str:
        return f"{self.T!r}.T"


def _plan(side: Jacobian | TransposedJacobian, name: str, jacobian: Jacobian, k: int) -> Plan:
    probe = torch.zeros(side.shape[1], dtype=side.dtype, device=side.device)
    side @ probe  # the first product of a process also loads what it needs
    begun = perf_counter()
    (side @ probe).sum().item()  # waits for an accelerator
    seconds, linearised = perf_counter() - begun, jacobian._linearised
    vectors = min(k, _BLOCK) * sum(side.shape) * probe.element_size()
    return Plan(name, k, k * seconds, graph_bytes(linearised.outputs, linearised.theta) + vectors)


def _product(
    other: Tensor, size: int, dtype: torch.dtype, device: torch.device, rows: Callable[[Tensor], Tensor]
) -> Tensor:
    remedy = f"Pass a torch tensor of shape ({size},) or ({size}, k), {dtype}, on {device}."
    if not isinstance(other, Tensor) or other.ndim not in (1, 2) or other.shape[0] != size:
        given = str(tuple(other.shape)) if isinstance(other, Tensor) else type(other).__name__
        raise OperandError("right operand", f"a tensor with {size} rows", given, remedy)
    if other.dtype != dtype or other.device != device:
        raise OperandError("right operand", f"{dtype} on {device}", f"{other.dtype} on {other.device}", remedy)
    if other.ndim == 1:
        return rows(other.detach()[None])[0]
    if not other.shape[1]:
        return rows(other.new_zeros(1, size)).T[:, :0]
    return torch.cat([rows(part) for part in other.detach().T.contiguous().split(_BLOCK)]).T
