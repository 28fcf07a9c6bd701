"""The Hessian of a loss with respect to a model's parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Operator, Plan
from .engine import start
from .layout import Selection
from .objective import Objective, of_function, of_model


class Hessian(Operator):
    r"""The Hessian of the mean loss over data, as an operator on flat parameter vectors.

    .. math:: H = \nabla^2_\theta \frac{\sum_b w_b\, \ell_b(\theta)}{\sum_b w_b}

    with ℓ_b the loss of batch b and w_b what its mean divides by: ragged batches, ignored targets and class weights
    give the Hessian of all data in one batch. A loss that sums (``reduction="sum"``) is added up undivided.

    Args:
        model: any ``nn.Module``. It is copied: later changes of the model do not reach the operator, and the operator
            changes nothing of the model (no ``.grad``, no mode, no buffer).
        loss: ``loss(output, target)``, the mean over a batch; modules such as ``nn.CrossEntropyLoss`` and functions of
            ``torch.nn.functional`` (also in ``functools.partial``) are read for reduction, ignored index and weights.
        data: one batch ``(inputs, target)``, a re-iterable of batches, or a ``DataLoader``. Inputs that are a tuple or
            a mapping are passed as ``model(*inputs)`` or ``model(**inputs)``.
        params: glob pattern, several, or a predicate over parameter names. ``"*"`` takes every parameter that requires
            a gradient; any other choice takes what it names, frozen parameters too. Tied parameters count once.
        dtype: cast a copy of model, loss and data to this dtype. Without it, all must agree already.
        batch_stats: ``"frozen"`` or ``"batch"``: which statistics BatchNorm layers use. Needed in train mode.
        memory_cap: bytes that retained graphs may take; by default a quarter of the device's memory.
        reduction: ``"mean"`` or ``"sum"`` for a loss that does not say.

    Shapes: (P, P) with P the number of chosen entries; dtype and device are those of the parameters.

    Assumptions: the loss is twice differentiable where it is evaluated (a ReLU network is, off its kinks) and the same
    function on every pass. Parameters that the loss does not reach have zero rows.

    Cost: construction 1.0 – 1.5 gradients. A product 1.5 – 2.5 gradients while the graphs fit ``memory_cap``, else
    about 3.5 and nothing kept. The choice is a rule on bytes, never on time; ``repr`` and :meth:`plan` state it.

    Errors: a :class:`~lemmata.analysis.errors.LemmataError` that names the culprit and the remedy.

    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian.

    Example:
        Linear regression has H = (2/N) XᵀX:

        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> X = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
        >>> H = Hessian(model, torch.nn.MSELoss(), (X, torch.zeros(2, 1)))
        >>> H @ torch.tensor([1.0, 0.0])
        tensor([2., 2.])

    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        data: Any,
        params: Selection = "*",
        dtype: torch.dtype | None = None,
        batch_stats: str | None = None,
        memory_cap: int | None = None,
        reduction: str | None = None,
    ) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            self._bind(of_model(model, loss, data, params, dtype, batch_stats, reduction), memory_cap)

    @classmethod
    def of(
        cls,
        objective: Callable[[dict[str, Tensor]], Tensor],
        parameters: Mapping[str, Tensor],
        memory_cap: int | None = None,
    ) -> Hessian:
        """The Hessian of any scalar function of named tensors, at copies of ``parameters``.

        Example:
            >>> H = Hessian.of(lambda p: (p["x"] ** 3).sum(), {"x": torch.tensor([1.0, 2.0])})
            >>> H.dense()
            tensor([[ 6.,  0.],
                    [ 0., 12.]])

        """
        hessian = cls.__new__(cls)
        with torch.inference_mode(False), torch.enable_grad():
            hessian._bind(of_function(objective, parameters), memory_cap)
        return hessian

    def _bind(self, objective: Objective, memory_cap: int | None) -> None:
        if memory_cap is not None and (not isinstance(memory_cap, int) or memory_cap < 0):
            raise ArgumentError("memory_cap", "bytes, an integer ≥ 0", repr(memory_cap), "Pass 2**30 for one GiB.")
        self.memory_cap = _memory(objective.device) // 4 if memory_cap is None else memory_cap
        self.layout, self.dtype, self.device = objective.layout, objective.dtype, objective.device
        self.batch_stats = objective.batch_stats
        self._switched = objective.switched
        self._start = start(objective, self.memory_cap)
        self._seconds: float | None = None

    @property
    def value(self) -> float:
        """The loss over all data at the bound parameters."""
        return self._start.value

    @property
    def gradient(self) -> Tensor:
        """The gradient over all data at the bound parameters, (P,)."""
        return self._start.gradient.clone()

    @property
    def mode(self) -> str:
        """How products are taken, decided at construction by the memory rule."""
        return self._start.engine.mode

    @property
    def switched(self) -> tuple[str, ...]:
        """The operations that were rerouted, in words, because PyTorch's default has no right second derivative."""
        return tuple(sorted(self._switched))

    def _multiply(self, vectors: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return self._start.engine.multiply(vectors.clone() if vectors.is_inference() else vectors)

    def plan(self, k: int = 1) -> Plan:
        """Products, their seconds and the bytes held. The seconds are those of one product, timed here after another."""
        engine = self._start.engine
        own = self.shape[0] * torch.finfo(self.dtype).bits // 8
        if self._seconds is None:
            probe = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
            self @ probe  # the first product of a process also loads what it needs
            begun = perf_counter()
            (self @ probe).sum().item()  # waits for an accelerator
            self._seconds = perf_counter() - begun
        return Plan(f"Hessian, {engine.mode}", k, k * self._seconds, engine.held + 2 * own)

    def __repr__(self) -> str:
        notes = [f"{self.shape[0]} × {self.shape[1]}", str(self.dtype), str(self.device), self.mode]
        notes.append(f"{self._start.batches} batch" + "es" * (self._start.batches != 1))
        if self.batch_stats:
            notes.append(f"batch_stats={self.batch_stats!r}")
        return f"Hessian({', '.join(notes + list(self.switched))})"


def _memory(device: torch.device) -> int:
    """Bytes of memory of a device, used or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
