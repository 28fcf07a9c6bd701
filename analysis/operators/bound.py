"""Operators bound to the parameters that a model had at construction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Operator, Plan
from .engine import Curvature, Note, start
from .layout import Selection, out_of_reach
from .memory import device_memory
from .objective import Objective, of_model


class Bound(Operator):
    """A matrix of second derivatives of an objective, at copies of its parameters; products by the engine's rule."""

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
            objective = of_model(model, loss, data, params, dtype, batch_stats, reduction)
            self._bind(objective, memory_cap)

    @abstractmethod
    def _curvature(self, objective: Objective) -> Curvature:
        """Which matrix of second derivatives this operator is."""

    def _bind(self, objective: Objective, memory_cap: int | None) -> None:
        """Pass once over the data; every constructor ends here."""
        if memory_cap is not None and (not isinstance(memory_cap, int) or memory_cap < 0):
            raise ArgumentError("memory_cap", "bytes, an integer ≥ 0", repr(memory_cap), "Pass 2**30 for one GiB.")
        self.memory_cap = device_memory(objective.device) // 4 if memory_cap is None else memory_cap
        self.layout, self.dtype, self.device = objective.layout, objective.dtype, objective.device
        self.batch_stats = objective.batch_stats
        self._switched = objective.switched
        self._start = start(objective, self.memory_cap, self._curvature(objective))
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
    def block(self) -> int:
        """How many vectors one backward pass multiplies together."""
        return self._start.engine.block

    @property
    def mode(self) -> str:
        """How products are taken: the memory rule's choice at construction, and what running out of memory made of it."""
        return self._start.engine.mode

    @property
    def switched(self) -> tuple[str, ...]:
        """The operations that were rerouted, in words, because PyTorch's default has no right second derivative."""
        return tuple(sorted(self._switched))

    @property
    def unreached(self) -> tuple[str, ...]:
        """The chosen parameters that the loss does not depend on; their rows are zero."""
        return self._start.unreached

    def _multiply(self, vectors: Tensor, note: Note | None = None) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return self._start.engine.multiply(vectors.clone() if vectors.is_inference() else vectors, note)

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
        return Plan(f"{type(self).__name__}, {engine.mode}", k, k * self._seconds, engine.held + 2 * own)

    def __repr__(self) -> str:
        notes = [f"{self.shape[0]} × {self.shape[1]}", str(self.dtype), str(self.device), self.mode]
        notes.append(f"{len(self._start.sizes)} batch" + "es" * (len(self._start.sizes) != 1))
        if self.batch_stats:
            notes.append(f"batch_stats={self.batch_stats!r}")
        notes += self.switched
        return f"{type(self).__name__}({', '.join(notes)}{out_of_reach('loss', self.unreached)})"
