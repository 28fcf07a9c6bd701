"""Routes PyTorch operations whose derivatives are missing or wrong to forms that have right ones; finds those it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


def _mse(input: Tensor, target: Tensor, reduction: str = "mean", **unusual: Any) -> Tensor:
    if input.shape != target.shape or any(option is not None for option in unusual.values()):
        return F.mse_loss(input, target, reduction=reduction, **unusual)
    square = (input - target) ** 2
    if reduction == "none":
        return square
    return square.mean() if reduction == "mean" else square.sum()


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    axes = [axis for axis in range(v.ndim) if axis != dim]  # dim = -1 stands for one norm of the whole tensor
    return v * (g / (v * v).sum(axes, keepdim=True).sqrt())


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(input + 3) / 6


_REWRITTEN: dict[Callable, tuple[str, Callable]] = {
    F.mse_loss: ("mse_loss: written out", _mse),
    torch._weight_norm: ("weight_norm: written out", _weight_norm),
    F.hardsigmoid: ("hardsigmoid: written out", _hardsigmoid),
}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
_VF: Any = torch._C._VariableFunctions
_RECURRENT = {_VF.lstm, _VF.gru, _VF.rnn_tanh, _VF.rnn_relu}


@contextmanager
def _disabled(backend: Any) -> Iterator[None]:
    before = backend.enabled
    backend.enabled = False
    try:
        yield
    finally:
        backend.enabled = before


class Differentiable(TorchFunctionMode):
    """While active, the model's forward pass uses only operations that have a right second derivative.

    - ``F.mse_loss``, ``torch._weight_norm`` and ``F.hardsigmoid`` are written out: the first breaks under forward
      mode, the double backward of the second is wrong, the third has none.
    - attention runs on the MATH kernel: the fused ones have no second derivative.
    - recurrent layers run with mkldnn and cuDNN off, for the same reason.

    ``switched`` collects, in words, what was met.
    """

    def __init__(self, switched: set[str]) -> None:
        super().__init__()
        self.switched = switched

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function, rerouted where it must be."""
        kwargs = kwargs or {}
        if func in _REWRITTEN:
            name, written = _REWRITTEN[func]
            self.switched.add(name)
            return written(*args, **kwargs)
        if func not in _ATTENTION and func not in _RECURRENT:
            return func(*args, **kwargs)
        with ExitStack() as stack:
            if func in _ATTENTION:
                self.switched.add("attention: MATH kernel")
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            else:
                self.switched.add("recurrent layers: mkldnn and cuDNN off")
                stack.enter_context(_disabled(torch.backends.mkldnn))
                stack.enter_context(_disabled(torch.backends.cudnn))
            return func(*args, **kwargs)


_ONCE = torch.autograd.function.once_differentiable(lambda ctx, *slopes: None).__code__


def once_differentiable(value: Tensor) -> str | None:
    """The name of an autograd function in the graph of ``value`` whose backward is marked ``once_differentiable``.

    PyTorch refuses to differentiate such a backward only where the incoming slope carries a graph; elsewhere it treats
    the result as constant, and second derivatives come out wrong without a word.
    """
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(node, "_forward_cls", None)
        if function is not None and getattr(function.backward, "__code__", None) is _ONCE:
            return str(function.__name__)
        waiting += [source for source, _ in node.next_functions]
    return None
