"""All breakpoints of a piecewise linear network on a segment, layer by layer, in certified floating point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .written_out import Cut, PiecewiseLinear, Track, columns, exact, joined


@dataclass
class Sweep:
    """The breakpoints of the layers so far, with the ends, ascending; the values of the units still needed at them."""

    sources: dict[int, Track]
    born: NDArray[np.int64]  # layer of each point
    patterns: NDArray[np.bool_]  # (units, intervals)

    @staticmethod
    def over(net: PiecewiseLinear) -> Sweep | None:
        """Through all layers; None where rounding hides a sign or an order."""
        sweep = Sweep({0: exact(np.array([[0.0, 1.0]]))}, np.full(2, -1), np.zeros((0, 1), dtype=bool))
        last = net.last_uses()
        for k, layer in enumerate(net.layers, 1):
            z = layer.affine(sweep.sources)
            if z.hidden.any():
                return None
            sweep.sources = {j: track for j, track in sweep.sources.items() if j == 0 or last.get(j, 0) > k}
            sweep.sources[k] = z
            if not sweep.cut(k):
                return None
            sweep.sources[k] = layer.bend(sweep.sources[k])
        return sweep

    def cut(self, k: int) -> bool:
        """Add the points where units of layer k switch; False where their order is hidden."""
        z = self.sources[k]
        signs = z.signs
        units, intervals = np.nonzero(signs[:, :-1] * signs[:, 1:] < 0)
        ends = tuple((z.value[units, i], z.error[units, i]) for i in (intervals, intervals + 1))
        cut = Cut.of(*ends)
        order = np.lexsort([cut.share, intervals])
        units, intervals, cut = units[order], intervals[order], Cut(cut.share[order], cut.error[order])
        near = (np.diff(cut.share) <= cut.error[1:] + cut.error[:-1]) & (np.diff(intervals) == 0)
        if near.any():
            return False
        count = signs.shape[1]
        place = np.argsort(np.concatenate([np.arange(count), intervals]), kind="stable")
        new = count + np.arange(len(units))
        for j, track in self.sources.items():
            cuts = cut.between(columns(track, intervals), columns(track, intervals + 1))
            whole = joined([(track.value, track.error), cuts])
            if j == k:
                whole.value[units, new] = whole.error[units, new] = 0.0
            self.sources[j] = Track(whole.value[:, place], whole.error[:, place])
        self.born = np.concatenate([self.born, np.full(len(units), k - 1)])[place]
        parents = np.sort(np.concatenate([np.arange(count - 1), intervals]))
        active = self.sources[k].value > 0
        self.patterns = np.concatenate([self.patterns[:, parents], active[:, :-1] | active[:, 1:]])
        return True
