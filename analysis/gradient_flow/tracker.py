"""What happens inside a network while it is trained, recorded at a bounded share of the time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf, isfinite, nan
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ModelStateError
from ..operators.layout import Selection
from ..operators.snapshot import _copy
from .quantities import QUANTITIES, Quantity, Readings, Setting, Updates, exact, own
from .training_record import Series, Track

_UPDATES = "updates"


def track(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    quantities: Sequence[str] = ("gradient", "updates", "sharpness"),
    extra: Mapping[str, Callable[[nn.Module], Any]] | None = None,
    every: int | None = None,
    overhead: float = 0.05,
    params: Selection = "*",
    batch_stats: str | None = None,
    reduction: str | None = None,
    seed: int = 0,
) -> Tracker:
    r"""Record quantities of a network along a training loop of any kind.

    Call ``tracker.step()`` once for each training step, always at the same place, or have an optimiser do it:
    ``optimizer.register_step_post_hook(lambda *_: tracker.step())``. ``tracker.track`` is the record so far; ``with`` stops
    the clock at the end of the loop. The network, its gradients and mode, and the generators of torch, numpy and Python are
    left as they are, to the bit, as is a generator of the DataLoader's own: training takes the same path with a tracker as
    without.

    Args:
        model, loss, data, params, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`. A copy of the network is
            measured, in eval mode: dropout is off, and BatchNorm has its running statistics unless ``batch_stats="batch"``.
        quantities: of

            - ``"gradient"``: the loss over the data and the norm of its gradient; one gradient;
            - ``"updates"``: :math:`\|\theta_{k+1} - \theta_k\| / \|\theta_k\|` of each layer, from this call to the next;
            - ``"sharpness"``: the largest Hessian eigenvalue ± its residual, each search from the last eigenvector; 1.5
              gradients and a few products;
            - ``"noise"``: the gradient noise scale with its interval; two gradients;
            - ``"kernel"``: :math:`\|\Theta - \Theta_0\|_F / \|\Theta_0\|_F` on at most 64 examples of the first batch;
            - ``"balance"``: the drift of what gradient flow conserves.

        extra: more of them by name: functions of the network that return a number or an estimate; they get the copy.
        every: steps from one record to the next, the first step included. None: a record is made as soon as the time that
            recording has taken, with one more as long as the last, is at most ``overhead`` of the time of training. The
            clock then decides *when* records are made, never what they say, but for the warm start of the sharpness,
            which moves it within its interval.
        overhead: the share for ``every=None``. The first record comes at once, so that a short run spends more.
        seed: of random directions and groups.

    Cost: a copy of the network at each record; memory for it and, after a record of updates, of its parameters until the next step.

    Errors: ``ArgumentError`` for an unknown quantity or an option outside its domain; at a record those of the analyzers,
    ``ModelStateError`` for a network that cannot be copied or whose tensors are others than at first, or frozen since,
    and ``ArgumentError`` for a name in ``extra`` that another quantity has.

    Source: Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of stability; McCandlish et
    al. 2018, An empirical model of large-batch training.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(net.weight)
        >>> data, descent = (torch.ones(1, 1), torch.zeros(1, 1)), torch.optim.SGD(net.parameters(), lr=0.25)
        >>> with track(net, nn.MSELoss(), data, every=1) as tracker:
        ...     for _ in range(3):
        ...         tracker.step()
        ...         descent.zero_grad()
        ...         nn.MSELoss()(net(data[0]), data[1]).backward()
        ...         descent.step()
        >>> found = tracker.track
        >>> found["loss"].values.tolist(), found["sharpness"].values.tolist()
        ([1.0, 0.25, 0.0625], [2.0, 2.0, 2.0])
        >>> found["update ratio: model"].values.tolist()  # the last step is seen at the end
        [0.5, 0.5, 0.5]

    """
    return Tracker(
        model, Setting(loss, data, params, batch_stats, reduction, seed), quantities, extra or {}, every, overhead
    )


class Tracker:
    """Records quantities of a network while it is trained; made by :func:`track`."""

    def __init__(
        self,
        model: nn.Module,
        setting: Setting,
        quantities: Sequence[str],
        extra: Mapping[str, Callable[[nn.Module], Any]],
        every: int | None,
        overhead: float,
    ) -> None:
        _check(model, quantities, extra, every, overhead)
        self.model, self.setting = getattr(model, "_orig_mod", model), setting
        self.names, self.extra, self.every, self.overhead = tuple(quantities), dict(extra), every, overhead
        self.calls, self._spent, self._last = 0, 0.0, 0.0
        self._begun: float | None = None
        self._ended: float | None = None
        self._first: dict[str, tuple[torch.Size, bool]] | None = None
        self._read: list[Quantity] = []
        self._rows: list[tuple[int, Readings]] = []
        self._updates: Updates | None = None

    def __enter__(self) -> Tracker:
        self._begun = perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._timed(self._finish)
        self._ended = perf_counter()

    def step(self, step: int | None = None, loss: float | Tensor | None = None) -> None:
        """Count one training step, and record if it is due.

        ``step`` is the number to record it under, by default that of earlier calls; ``loss`` that of the training batch,
        recorded as ``"training loss"``.
        """
        if self._begun is None:
            self._begun = perf_counter()
        if self._updates is not None:
            self._timed(self._finish)
        if self._due():
            self._last = self._timed(lambda: self._record(self.calls if step is None else step, loss))
        self.calls += 1

    @property
    def track(self) -> Track:
        """What has been recorded so far."""
        names = list(dict.fromkeys(name for _, row in self._rows for name in row))
        missing = exact(nan)
        columns = {n: torch.tensor([row.get(n, missing) for _, row in self._rows], dtype=torch.float64) for n in names}
        end = perf_counter() if self._ended is None else self._ended
        whole = 0.0 if self._begun is None else end - self._begun
        cadence = f"every {self.every}" if self.every else f"as often as {self.overhead:.3g} of the time allows"
        return Track(
            torch.tensor([step for step, _ in self._rows], dtype=torch.int64),
            {name: Series(*column.T) for name, column in columns.items()},
            self.calls,
            self._spent,
            max(0.0, whole - self._spent),
            cadence,
        )

    def _due(self) -> bool:
        if self.every is not None:
            return self.calls % self.every == 0
        assert self._begun is not None
        training = perf_counter() - self._begun - self._spent
        return not self._rows or self._spent + self._last <= self.overhead * training

    def _timed(self, run: Callable[[], None]) -> float:
        self._wait()  # what training has queued on an accelerator is its own time
        begun = perf_counter()
        with _untouched(self.model, self.setting.data):
            run()
        self._wait()
        taken = perf_counter() - begun
        self._spent += taken
        return taken

    def _wait(self) -> None:
        first = next(iter(self.model.parameters()), None)
        if first is not None and first.device.type == "cuda":
            torch.cuda.synchronize(first.device)

    def _finish(self) -> None:
        """The update of the step that was recorded last is done."""
        if self._updates is not None:
            updates, self._updates = self._updates, None
            _add(self._rows[-1][1], updates.read(self.model))

    def _record(self, step: int, loss: float | Tensor | None) -> None:
        model = self._current()
        if not self._rows:
            self._read = [QUANTITIES[name](self.setting, model) for name in self.names if name != _UPDATES]
            self._read += [own(name, function) for name, function in self.extra.items()]
        if isinstance(loss, Tensor):
            loss = loss.item()
        row: Readings = {} if loss is None else {"training loss": exact(float(loss))}
        for read in self._read:
            _add(row, read(model))
        self._rows.append((step, row))
        if _UPDATES in self.names:
            self._updates = Updates(self.model, self.setting.params)

    @torch.no_grad()
    def _current(self) -> nn.Module:
        """A copy of the network as it is, in eval mode, if it has the tensors it had at first."""
        tensors = (*self.model.named_parameters(), *self.model.named_buffers())
        now = {name: (tensor.shape, tensor.requires_grad) for name, tensor in tensors}
        if self._first is None:
            self._first = now
        if now != self._first:
            changed = sorted(n for n in now.keys() | self._first.keys() if now.get(n) != self._first.get(n))
            expected, remedy = "the same tensors to train", "Begin another tracker after the network has changed."
            raise ModelStateError(type(self.model).__name__, expected, f"others or frozen: {changed}", remedy)
        try:
            model = _copy(self.model)
        except ModelStateError as error:
            remedy = (
                "Have the forward pass keep no tensor, or a detached one, or delete it before tracker.step(); use "
                "torch.nn.utils.parametrizations in place of the old weight_norm and spectral_norm hooks."
            )
            raise ModelStateError(error.name, error.expected, error.given, remedy) from error
        model.zero_grad()
        return model.eval()


def _add(row: Readings, found: Readings) -> None:
    if taken := sorted(row.keys() & found.keys()):
        remedy = "Give your own function in extra={name: function} another name."
        raise ArgumentError(f"extra[{taken[0]!r}]", "a name that no other quantity has", "one that has it", remedy)
    row.update(found)


@contextmanager
def _untouched(model: nn.Module, data: Any) -> Iterator[None]:
    """The generators of torch, numpy, Python and the data are put back at the end, also after an error."""
    first = next(iter(model.parameters()), None)
    devices = [first.device.index or 0] if first is not None and first.device.type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    own = [(generator, generator.get_state()) for generator in _generators(data)]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for generator, state in own:
            generator.set_state(state)


def _generators(data: Any) -> list[torch.Generator]:
    """Those of a DataLoader, of its samplers and of its data set."""
    batches = getattr(data, "batch_sampler", None)
    holders = (data, getattr(data, "sampler", None), batches, getattr(batches, "sampler", None))
    found = [getattr(holder, "generator", None) for holder in (*holders, getattr(data, "dataset", None))]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def _check(
    model: nn.Module, quantities: Sequence[str], extra: Mapping[str, Any], every: int | None, overhead: float
) -> None:
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", "a torch.nn.Module", type(model).__name__, "Pass the network that is trained.")
    known = [*QUANTITIES, _UPDATES]
    if isinstance(quantities, str) or any(name not in known for name in quantities):
        remedy = "Pass a tuple of them; functions of your own go into extra={name: function}."
        raise ArgumentError("quantities", f"some of {known}", repr(quantities), remedy)
    for name, function in extra.items():
        if not callable(function):
            remedy = "Pass a function of the network that returns a number."
            raise ArgumentError(f"extra[{name!r}]", "a callable", type(function).__name__, remedy)
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise ArgumentError(
            "every", "an integer ≥ 1, or None", repr(every), "Leave it out to bound the overhead instead."
        )
    if not 0 < overhead < inf or not isfinite(overhead):
        raise ArgumentError("overhead", "a positive share", repr(overhead), "Pass overhead=0.05.")
