"""Taps on the uses of parameters: a backward pass through them leaves the norms of single examples' gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..operators.per_example import Recorder, Use, edges, nodes, positions
from ..spectra.probes import wide

_ENTRIES = 2**22  # numbers of single examples' factors that are formed at a time

#: What a tensor of parameters looks like in memory: gradients of two uses in the same frame can be added.
Frame = tuple[tuple[int, ...], tuple[int, ...], int]


@dataclass(frozen=True)
class Tap:
    r"""One use of a parameter: from the slope in its output to the gradients of single examples, a slice at a time.

    ``factors(slope, part, single)`` gives δ, (n, T, o), and a, (n, T, i), of the gradients :math:`\sum_t \delta_t a_t^\top`
    of the examples in ``part``; where the use is the ``single`` one, they may be in any basis of the parameter's rows.
    ``whole(slope, part)`` gives the gradients themselves, for a use that has no factors. ``numbers`` counts what is formed
    for one example.
    """

    place: int
    frame: Frame
    numbers: int
    factors: Callable[[Tensor, slice, bool], tuple[Tensor, Tensor]] | None = None
    whole: Callable[[Tensor, slice], Tensor] | None = None

    def gradients(self, slope: Tensor, part: slice) -> Tensor:
        """Of the examples in a slice, (n, entries)."""
        if self.whole is not None:
            return wide(self.whole(slope[part], part)).flatten(1)
        assert self.factors is not None
        delta, a = self.factors(slope[part], part, False)
        return (wide(delta).transpose(1, 2) @ wide(a)).flatten(1)


class Taps(TorchFunctionMode):
    """While active, taps each use of a leaf that it knows, and cuts the leaf out of the graph there.

    It knows linear maps, ungrouped convolutions, embeddings, products with a matrix or its transpose, gains and shifts of
    normalisations, and entrywise sums and products, where the first axis has the length ``count`` of the examples. That
    this axis is that of the examples, the caller has to check.
    """

    def __init__(self, leaves: list[Tensor], count: int) -> None:
        super().__init__()
        self.leaves, self.count = leaves, count
        self.places = {id(leaf): place for place, leaf in enumerate(leaves)}
        self.views: dict[int, tuple[Tensor, int]] = {}  # by identity; kept, so that no other tensor gets it
        self.token = leaves[0].detach().new_zeros(()).requires_grad_()
        self.taps: dict[int, list[Tap]] = defaultdict(list)
        self.slopes: dict[int, list[tuple[Tap, Tensor]]] = defaultdict(list)
        self.squares: dict[int, Tensor] = {}
        self.wanted: set[int] = set()

    def known(self, loss: Tensor) -> set[int]:
        """The places of the leaves whose every use is tapped: to any other the graph of the loss still leads."""
        left = edges(loss)
        one_frame = {place for place, taps in self.taps.items() if len({tap.frame for tap in taps}) == 1}
        return {place for place in one_frame if not left.get(id(self.leaves[place]))}

    def reached(self, loss: Tensor) -> set[int]:
        """The places of the leaves that the loss may depend on."""
        left = edges(loss)
        return {place for place, leaf in enumerate(self.leaves) if left.get(id(leaf)) or place in self.taps}

    def pull(self, loss: Tensor, wanted: set[int]) -> dict[int, Tensor]:
        """One backward pass: ‖gradient of the share of example n in this loss‖² for some leaves, (n,) in float64."""
        # What a tap puts out depends on the token, or on a leaf that is still in the graph.
        ends = {id(node.variable): node.variable for node in nodes(loss) if hasattr(node, "variable")}
        self.wanted = wanted
        try:
            torch.autograd.grad(loss, list(ends.values()))
            for pairs in self.slopes.values():
                self._finish(pairs)
        finally:
            self.wanted = set()
            self.slopes.clear()
        zero = torch.zeros(self.count, dtype=torch.float64, device=loss.device)
        return {place: self.squares.get(place, zero) for place in wanted}

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function, and tap it if it uses a leaf in a known way."""
        kwargs = kwargs or {}
        note = _NOTES.get(func)
        ours = (
            {id(x): place for x in (*args, *kwargs.values()) if (place := self._place(x)) is not None} if note else {}
        )
        # Inside a transform of torch.func tensors are wrapped, and their slopes are not those of the loss.
        if note is None or not ours or not torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack():
            return self._remember(func(*args, **kwargs))
        output = func(
            *(x.detach() if id(x) in ours else x for x in args),
            **{name: x.detach() if id(x) in ours else x for name, x in kwargs.items()},
        )
        fits = output.ndim and len(output) == self.count and output.is_floating_point()
        taps = note(self, func, output.detach(), *args, **kwargs) if fits else []
        if {tap.place for tap in taps} != set(ours.values()):
            return func(*args, **kwargs)
        if not output.requires_grad:
            output = output + self.token
        for tap in taps:
            self.taps[tap.place].append(tap)
        output.register_hook(lambda slope: self._receive(taps, slope))
        return output

    def _receive(self, taps: list[Tap], slope: Tensor) -> None:
        for tap in taps:
            if tap.place in self.wanted:
                if len(self.taps[tap.place]) == 1:
                    self._finish([(tap, slope)])
                else:
                    self.slopes[tap.place].append((tap, slope))

    def _finish(self, pairs: list[tuple[Tap, Tensor]]) -> None:
        """All uses of one parameter: their terms side by side if all have factors, else their gradients added up."""
        place, rows = pairs[0][0].place, []
        single = len(self.taps[place]) == 1
        step = max(1, _ENTRIES // sum(tap.numbers for tap, _ in pairs))
        for start in range(0, self.count, step):
            part = slice(start, start + step)
            found = [tap.factors(slope[part], part, single) for tap, slope in pairs if tap.factors]
            if len(found) == len(pairs):
                delta, a = (wide(sides[0] if single else torch.cat(sides, 1)) for sides in zip(*found, strict=True))
                rows.append(Use(0, None, delta, lambda a=a: a, lambda slope: slope).norms(delta, a).double())
            else:
                total = torch.stack([tap.gradients(slope, part) for tap, slope in pairs]).sum(0)
                rows.append(total.double().square().sum(1))
        self.squares[place] = torch.cat(rows)

    def _place(self, x: Any) -> int | None:
        """Of a leaf, or of a view of one."""
        found = self.places.get(id(x))
        return self.views.get(id(x), (None, None))[1] if found is None else found

    def _remember(self, output: Any) -> Any:
        """Keep a view of a leaf, if no two of its entries share a number."""
        if isinstance(output, Tensor) and output._is_view() and id(output._base) in self.places:
            if torch._debug_has_internal_overlap(output) == 0:
                self.views[id(output)] = output, self.places[id(output._base)]
        return output

    # ---------------------------------------------------------------- what is known

    def _tap(self, theta: Tensor, numbers: int, **how: Any) -> Tap:
        place = self._place(theta)
        assert place is not None
        return Tap(place, _frame(theta), numbers, **how)

    def _layer(self, func: Callable, output: Tensor, *args: Any, **kwargs: Any) -> list[Tap]:
        recorder = Recorder(self.leaves)
        record = recorder._linear if func is F.linear else recorder._convolution
        record(output, *args, **kwargs)
        if not recorder.uses:
            return []
        use = replace(recorder.uses[0], output=self.token)  # else the output would be kept
        taps = []
        if use.weight is not None:
            weight = self.leaves[use.weight]
            numbers = output[0].numel() // weight.shape[0] * weight[0].numel()
            taps.append(
                self._tap(weight, numbers, factors=lambda slope, part, _: (use.deltas(slope), use.inputs(part)))
            )
        if use.bias is not None:
            bias = self.leaves[use.bias]
            taps.append(self._tap(bias, bias.numel(), whole=lambda slope, part: use.deltas(slope).sum(1)))
        return taps

    def _matmul(self, func: Callable, output: Tensor, *pair: Any, **options: Any) -> list[Tap]:
        if options or len(pair) != 2:
            return []
        x, matrix = pair
        if self._place(matrix) is None or matrix.ndim != 2 or x.ndim < 2 or len(x) != self.count:
            return []
        held, transposed = x.detach(), matrix.stride(0) < matrix.stride(1)  # the transpose of what lies in memory

        def factors(slope: Tensor, part: slice, single: bool) -> tuple[Tensor, Tensor]:
            sides = positions(slope), positions(held[part])
            return sides if transposed else sides[::-1]

        numbers = (held if transposed else output)[0].numel()
        return [replace(self._tap(matrix, numbers, factors=factors), frame=_frame(matrix.mT if transposed else matrix))]

    def _addmm(self, func: Callable, output: Tensor, *three: Any, **options: Any) -> list[Tap]:
        if options or len(three) != 3:
            return []
        shift, x, matrix = three
        taps = self._matmul(func, output, x, matrix)
        if self._place(shift) is not None:
            taps += self._broadcast(shift, tuple(shift.shape), output, None)
        return taps

    def _embedding(
        self, func: Callable, output: Tensor, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any
    ) -> list[Tap]:
        options = signature(func).bind(input, weight, *args, **kwargs).arguments
        if options.get("max_norm") is not None or options.get("scale_grad_by_freq") or input.shape[0] != self.count:
            return []
        tokens, padding = input.reshape(self.count, -1), options.get("padding_idx")

        def factors(slope: Tensor, part: slice, single: bool) -> tuple[Tensor, Tensor]:
            s, a = tokens[part], positions(slope)
            if padding is not None:
                a = a * (s != padding % len(weight))[..., None]
            if not single:
                return F.one_hot(s.long(), len(weight)).to(a), a
            # Alone, a row of the table may be numbered by the first place in the sequence that calls for it.
            first = (s[:, :, None] == s[:, None]).int().argmax(2)
            return F.one_hot(first, s.shape[1]).to(a), a

        terms = tokens.shape[1]
        return [self._tap(weight, terms * max(terms, *weight.shape), factors=factors)]

    def _broadcast(
        self, theta: Tensor, shape: tuple[int, ...], output: Tensor, factor: Callable[[slice], Tensor] | None
    ) -> list[Tap]:
        """Θ in a shape that is broadcast to the output's, and multiplied by a factor there."""
        shape = (*[1] * (output.ndim - len(shape)), *shape)
        if len(shape) != output.ndim or shape[0] != 1:  # a row for each example
            return []

        def gradients(slope: Tensor, part: slice) -> Tensor:
            product = slope if factor is None else slope * factor(part)
            return product.sum_to_size(len(slope), *shape[1:])

        return [self._tap(theta, output[0].numel(), whole=gradients)]

    def _entrywise(self, func: Callable, output: Tensor, *pair: Any, **options: Any) -> list[Tap]:
        if options or len(pair) != 2 or not all(isinstance(one, Tensor) for one in pair):
            return []
        theta, other = pair[::-1] if self._place(pair[0]) is None else pair
        if func in _ADDITIONS:
            return self._broadcast(theta, tuple(theta.shape), output, None)
        held, split = other.detach(), other.ndim == output.ndim and len(other) == self.count
        return self._broadcast(theta, tuple(theta.shape), output, lambda part: held[part] if split else held)

    def _normalised(self, func: Callable, output: Tensor, *args: Any, **kwargs: Any) -> list[Tap]:
        """Gain and shift of what the same function gives without them; one for each channel, or each last entry."""
        given = dict(signature(func).bind(*args, **kwargs).arguments)
        if given.get("training"):
            return []
        held, bare = given["input"].detach(), {**given, **dict.fromkeys({"weight", "bias"} & set(given))}

        def normal(part: slice) -> Tensor:
            return func(**{**bare, "input": held[part]})

        taps = []
        for name, factor in (("weight", normal), ("bias", None)):
            theta = given.get(name)
            if theta is not None and self._place(theta) is not None:
                ends = (1,) * (output.ndim - 2) if func in (F.group_norm, F.batch_norm) else ()
                taps += self._broadcast(theta, (*theta.shape, *ends), output, factor)
        return taps


_ADDITIONS: tuple[Callable, ...] = (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
_PRODUCTS: tuple[Callable, ...] = (torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__)
_MATMULS: tuple[Callable, ...] = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
_LAYERS: tuple[Callable, ...] = (F.linear, torch.conv1d, torch.conv2d)
_NORMS: tuple[Callable, ...] = (F.layer_norm, F.rms_norm, F.group_norm, F.batch_norm)
_NOTES: dict[Callable, Callable[..., list[Tap]]] = {
    **dict.fromkeys(_LAYERS, Taps._layer),
    **dict.fromkeys(_MATMULS, Taps._matmul),
    **dict.fromkeys((*_ADDITIONS, *_PRODUCTS), Taps._entrywise),
    **dict.fromkeys(_NORMS, Taps._normalised),
    torch.addmm: Taps._addmm,
    F.embedding: Taps._embedding,
}


def _frame(tensor: Tensor) -> Frame:
    return tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
