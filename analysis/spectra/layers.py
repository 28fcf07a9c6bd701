"""The trace of a Hessian by random signs on the outputs of layers, for each example anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..operators.engine import Retained, no_slow_vmap
from ..operators.hessian import Hessian
from ..operators.per_example import Use
from .adaptive import Adaptive, Mean, quadratic
from .batches import Spread, spread, steady
from .probes import ALLOWANCE, looks, wide
from .structured import WIDEST, PerExample, Record, Sum, structure_of


class Forms:
    r"""Quadratic forms of one batch's Hessian in the outputs z of its layers, in two parts.

    The slopes :math:`\delta = J^\top s` in z are linear in the slope s in the model's output. One backward pass along u
    gives both their derivative in z at fixed s, which is the part of the Hessian that is not Gauss–Newton, and that in s,
    which is J u.
    """

    def __init__(self, record: Record) -> None:
        self.uses, self.middle, self.weight, self.size = record.uses, record.middle, record.weight, record.size
        self.given = record.slopes.detach().requires_grad_()
        outputs = [use.output for use in self.uses]
        self.roots = [_root(use) for use in self.uses]
        self.deltas = torch.autograd.grad(record.output, outputs, self.given, create_graph=True)
        self.leaves = [*outputs, self.given]
        self.heights = [use.deltas(use.output.detach()).shape[2] for use in self.uses]

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Of the signs that a probe takes, (N, r, o) for each layer."""
        return [(*root.shape[::2], o) for root, o in zip(self.roots, self.heights, strict=True)]

    def of(self, signs: Iterable[Tensor]) -> Tensor:
        """Gauss–Newton form and the rest, (2, k, N), in the directions R S from signs S, (k, N, r, o), of each layer."""
        rows = [r * s if r.shape[1:] == (1, 1) else r @ s for r, s in zip(self.roots, signs, strict=True)]
        directions = [_placed(use, part) for use, part in zip(self.uses, rows, strict=True)]
        if len(rows[0]) == 1:
            return self._multiply([part[0] for part in directions], False)[:, None]
        try:
            with no_slow_vmap():
                return self._multiply(directions, True)
        except RuntimeError:  # an operation that PyTorch cannot batch
            return torch.stack([self._multiply(list(one), False) for one in zip(*directions, strict=True)], 1)

    def _multiply(self, directions: list[Tensor], several: bool) -> Tensor:
        options = dict(retain_graph=True, allow_unused=True, is_grads_batched=several)
        *found, moved = torch.autograd.grad(self.deltas, self.leaves, directions, **options)
        assert moved is not None
        gauss = _by_example(moved, self.middle([moved], several)[0], several)
        pairs = [(u, part) for u, part in zip(directions, found, strict=True) if part is not None]
        rest = sum((_by_example(u, part, several) for u, part in pairs), torch.zeros_like(gauss))
        return self.weight * torch.stack([gauss, rest])


def _by_example(left: Tensor, right: Tensor, several: bool) -> Tensor:
    first = 2 if several else 1
    return (wide(left) * right).flatten(first - 1).reshape(*left.shape[:first], -1).sum(-1).double()


def _placed(use: Use, rows: Tensor) -> Tensor:
    """Rows (k, N, T, o) in the shape of the layer's output: ``deltas`` moves entries alone, so its adjoint undoes it."""
    output = torch.zeros_like(use.output).requires_grad_()
    return torch.autograd.grad(use.deltas(output), output, rows.to(output), is_grads_batched=True)[0]


def _root(use: Use) -> Tensor:
    """R, (N, T, r), with R Rᵀ = a aᵀ for a weight, and 1 more for a bias; of as few columns as it takes."""
    a = wide(use.inputs())
    columns = ([] if use.weight is None else [a]) + ([] if use.bias is None else [a.new_ones(*a.shape[:2], 1)])
    factor = torch.cat(columns, 2)
    if factor.shape[1] == 1:
        return factor.norm(dim=2, keepdim=True)
    if factor.shape[1] < factor.shape[2]:
        return torch.linalg.qr(factor.transpose(1, 2), mode="r")[1].transpose(1, 2)
    return factor


class Signs:
    """Random signs for the layers of one batch, drawn on the CPU one probe after another, eight from a byte."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int, shapes: list[tuple[int, int, int]], like: Tensor) -> list[Tensor]:
        """The next ``count`` probes, (count, N, r, o) for each shape."""
        sizes = [n * r * o for n, r, o in shapes]
        packed = torch.empty(count, -(-sum(sizes) // 8), dtype=torch.uint8, device="cpu")
        for row in packed:
            row.random_(0, 256, generator=self.generator)
        bits = torch.from_numpy(np.unpackbits(packed.numpy(), axis=1))[:, : sum(sizes)]
        signs = bits.to(like.device).to(like.dtype).mul_(2).sub_(1)
        return [part.reshape(count, *shape) for part, shape in zip(signs.split(sizes, 1), shapes, strict=True)]


@dataclass
class Drawn:
    """What is kept of one batch: its signs, its size, and the forms of its probes, (2, n)."""

    signs: Signs
    size: float
    forms: Tensor


class LayerProbes(Adaptive):
    r"""The trace of a Hessian of layers that multiply by parameters, each used once, from probes in their outputs.

    .. math:: \mathrm{tr}\,H = \sum_{n,l,t,t'} (a_{nlt} \cdot a_{nlt'})\, \mathrm{tr}\,
        \frac{\partial^2 \ell_n}{\partial z_{nlt}\, \partial z_{nlt'}} = E \sum_n u_n^\top\, \nabla_z^2 \ell_n\, u_n,
        \qquad u_{nl} = R_{nl} S_{nl}, \quad R R^\top = a a^\top

    with z = W a + b the layers' outputs at places t, and S random signs that are drawn for each example anew: examples
    have independent errors, which cancel, where a probe of the parameters is the same for all. No weight takes a
    gradient, so that a product takes about a third of one with H.

    The Gauss–Newton part of a form and the rest come from the same pass. Where that spares passes, the trace of the
    former is taken exactly, and what was drawn is kept for the latter.
    """

    def __init__(self, operator: Hessian, structure: PerExample, *options: Any) -> None:
        super().__init__(operator, quadratic, *options)
        self.block *= 2  # a direction in the outputs of layers is worked on in half the memory of one in the parameters
        engine = operator._start.engine
        self.keep = isinstance(engine, Retained) and 2 * engine.held <= operator.memory_cap
        self.structure, self.seeds = structure, self.probes.generator
        self.kept: list[Forms] | None = None
        self.drawn: list[Drawn] = []
        self.gauss_newton: Sum | None = None
        self.units = self.width = 0

    def run(self) -> Mean:
        """The estimate; see the class."""
        for count in looks(self.budget):
            self._draw(min(count - self.count, self.budget - self.matvecs))
            missing = self._need(self.samples) - self.count
            if self._known_pays(missing):
                self._know()
                missing = self._need(self.samples) - self.count
            if missing <= 0 or self.matvecs == self.budget:
                break
            if self.units <= min(missing, self.budget - self.matvecs):
                return self._exact()
        return self._found(self.samples, "control variate, layer probes" if self.gauss_newton else "layer probes")

    def spread(self) -> Spread:
        """How the parts of the batches spread."""
        forms = torch.stack([one.forms for one in self.drawn], 2).cpu()  # (2, n, B)
        sizes, whole = [one.size for one in self.drawn], forms.sum(0)
        if len(whole) == 1:  # unit vectors
            return spread(whole[0], sizes)
        if self.gauss_newton:
            return spread(self.gauss_newton.parts, sizes, forms[1])
        return spread(whole.new_zeros(len(sizes)), sizes, whole)

    @property
    def count(self) -> int:
        """How many probes were drawn."""
        return self.drawn[0].forms.shape[1] if self.drawn else 0

    @property
    def samples(self) -> Tensor:
        """Of each probe the form, or what is not known of it."""
        return self.forms[1] if self.gauss_newton else self.forms.sum(0)

    @property
    def forms(self) -> Tensor:
        """Gauss–Newton form and the rest of each probe over all batches, (2, n)."""
        return torch.stack([one.forms for one in self.drawn]).sum(0)

    def _batches(self) -> Iterator[Forms]:
        if self.kept is not None:
            yield from self.kept
            return
        kept = []
        for record in self.structure.records():
            with torch.inference_mode(False), torch.enable_grad():
                forms = Forms(record)
            if self.keep:
                kept.append(forms)
            yield forms
        self.kept = kept if self.keep else None

    def _draw(self, count: int) -> None:
        variances, magnitude = [], 0.0
        for batch, forms in enumerate(self._batches()):
            if batch == len(self.drawn):
                self.drawn.append(self._begin(forms))
            drawn = self.drawn[batch]
            blocks = [min(self.block, count - start) for start in range(0, count, self.block)]
            found = torch.cat([forms.of(drawn.signs.draw(k, forms.shapes, forms.roots[0])) for k in blocks], 1)
            drawn.forms = torch.cat([drawn.forms, found.sum(2)], 1)
            if self.matvecs == 0:
                variances.append(found.sum(0).var(0))
                magnitude += float(found.abs().sum()) / count
        if variances:
            each = torch.cat(variances)
            self.rank = max(1.0, float(each.sum() ** 2 / each.square().sum().clamp(min=1e-300)))
            self.rounding += ALLOWANCE * torch.finfo(self.operator.dtype).eps * magnitude
        self.matvecs += count

    def _begin(self, forms: Forms) -> Drawn:
        self.units = max(self.units, sum(r * o for _, r, o in forms.shapes))
        self.width = max(self.width, forms.given[0].numel())
        none = torch.zeros(2, 0, dtype=torch.float64, device=forms.given.device)
        return Drawn(Signs(int(torch.randint(2**62, (), generator=self.seeds, device="cpu"))), forms.size, none)

    def _known_pays(self, missing: float) -> bool:
        """Does the exact trace of the Gauss–Newton part, at three products for each output, leave fewer to be taken?"""
        cost, missing = 3 * self.width, min(missing, self.units)
        if self.gauss_newton or self.width > WIDEST or min(missing, self.budget - self.matvecs) <= cost:
            return False
        gauss, rest = self.forms
        self.offset = float(gauss.mean())
        left = self._need(rest) - self.count
        self.offset = 0.0
        return cost + max(left, 0.0) < missing

    def _know(self) -> None:
        """Take the Gauss–Newton part exactly."""
        self.gauss_newton = self.structure.trace()
        self.offset, self.rounding = self.gauss_newton.value, self.rounding + self.gauss_newton.bias
        self.matvecs += self.structure.passes

    def _exact(self) -> Mean:
        for drawn, forms in zip(self.drawn, self._batches(), strict=True):
            total = torch.zeros(2, 1, dtype=torch.float64, device=drawn.forms.device)
            zeros = [root.new_zeros(1, *shape) for root, shape in zip(forms.roots, forms.shapes, strict=True)]
            for layer, (n, r, o) in enumerate(forms.shapes):
                eye = torch.eye(r * o, dtype=zeros[layer].dtype, device=zeros[layer].device).view(r * o, 1, r, o)
                for rows in eye.split(self.block):
                    signs = [zero.expand(len(rows), -1, -1, -1) for zero in zeros]
                    signs[layer] = rows.expand(-1, n, -1, -1)
                    total += forms.of(signs).sum((1, 2))[:, None]
            drawn.forms = total
        self.gauss_newton, self.offset = None, 0.0
        self.matvecs += self.units
        value = float(self.samples)
        return Mean(value, 0.0, 0, self.matvecs, "layer units", self._met(value, 0.0), self._bias(value))


def by_layers(operator: Hessian, *options: Any) -> tuple[Mean, Spread] | None:
    """The trace by :class:`LayerProbes`, and how its parts spread; None where the layers are not of that kind."""
    found = LayerProbes(operator, structure_of(operator), *options)
    try:
        mean = found.run()
    except RuntimeError:  # NotStructured, or an operation without a second derivative by PyTorch's backward passes
        return None
    return mean, found.spread() if steady(operator, alone=found.kept is not None) else (None, 0)
