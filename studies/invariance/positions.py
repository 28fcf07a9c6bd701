r"""What a transformer can know of positions: rotated queries and keys, and sinusoids.

Rotary positions turn pairs of coordinates of queries and keys by an angle proportional to the position; their inner product
then knows the distance of two tokens and nothing else @su2024roformer. A sinusoid is turned in the same way from one position to
the next, by a rotation that does not depend on where it starts @vaswani2017attention; but it is added to the content, and the
logits of the sum are not relative. Rotations by large angles lose what the angle has lost by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.architectures.positions import BASE, rotate, sinusoidal
from lemmata.studies.claim import AtMost, Grid, Scales, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
PAIRS = (0, 0), (3, 0), (0, 5), (40, 17), (64, 2)  # positions of a query and a key, before the shift
ADDED = "rotated: a sinusoid is added"


def placed(x: Tensor, length: int, added: bool) -> Tensor:
    """The vector x at each of the positions 0 … length − 1, (length, d): rotated, or with a sinusoid added."""
    everywhere = x.expand(length, -1)
    return everywhere + sinusoidal(length, len(x), x) if added else rotate(everywhere)


def logits_moved(q: Tensor, k: Tensor, shift: int, both: bool, added: bool) -> tuple[Tensor, Tensor]:
    """The logits of PAIRS over ‖q‖ ‖k‖, and those of the same pairs moved by the shift."""
    length = max(max(pair) for pair in PAIRS) + shift + 1
    Q, K = placed(q, length, added), placed(k, length, added)
    here = torch.stack([Q[m] @ K[n] for m, n in PAIRS])
    there = torch.stack([Q[m + shift] @ K[n + shift * both] for m, n in PAIRS])
    return here / (q.norm() * k.norm()), there / (q.norm() * k.norm())


def draw_logits(ax: Any, rows: Rows) -> Columns:
    """Rotary logits keep their value when both tokens move; with added sinusoids they swing.

    Logit of one query and one key, five positions apart, against the position of the first. The rotary line is level, the
    line of the added sinusoid oscillates.
    """
    columns: dict[str, Any] = {"position": np.arange(len(rows[0].values["curve"]))}
    for arm, label in (("", "rotary"), (ADDED, "sinusoid added")):
        row = next(row for row in rows if row.arm == arm and not row.error)
        columns[label] = row.values["curve"]
        ax.plot(columns["position"], columns[label], label=label)
    ax.set(xlabel="position of the query, five before the key", ylabel="logit over ‖q‖ ‖k‖")
    ax.legend()
    return columns


@claim(
    source="su2024roformer",
    predicts=AtMost(1e-12),
    quick=Grid(width=[16, 64], shift=[7, 1000, 10_000], seeds=5),
    full=Grid(width=[16, 64, 128], shift=[7, 1000, 10_000], seeds=20),
    controls={
        ADDED: dict(added=True),
        "query and key move together: the query alone": dict(both=False),
    },
    figures=(draw_logits,),
)
def rope_relative(width: int, shift: int, seed: int, added: bool = False, both: bool = True) -> dict[str, Any]:
    r"""Rotary logits depend on the distance of two tokens alone.

    Let $R_p$ turn the $i$-th pair of coordinates of $RR^d$ by the angle $p thin 10000^(-2 i\/d)$. The $R_p$ are orthogonal and
    $R_p R_s = R_(p + s)$, hence
    $ chevron.l R_m q, R_n k chevron.r = chevron.l q, R_(n - m) k chevron.r $
    @su2024roformer: moving both tokens by any shift leaves the logit. The value is the largest change of the logits of five pairs
    of positions under the shift, over $norm(q) norm(k)$, or of the norms if that is larger; the angle of a position $p$ is known to
    $p epsilon$, which sets the tolerance at ten thousand. In the first control the transformer's sinusoid
    @vaswani2017attention is added to query and key instead: the products of position and content are not relative.
    """
    draws = torch.Generator().manual_seed(seed)
    q, k = gaussian(draws, 2, width)
    here, there = logits_moved(q, k, shift, both, added)
    Q, K = placed(q, 56, added), placed(k, 56, added)
    norms = 0.0 if added else float((Q.norm(dim=1) / q.norm() - 1).abs().max())
    single = logits_moved(q.float(), k.float(), shift, both, added)
    return {
        "value": max(float((here - there).abs().max()), norms),
        "single precision": float((single[0] - single[1]).abs().max()),
        "curve": (Q[:-5] * K[5:]).sum(1) / (q.norm() * k.norm()),
    }


def turned(x: Tensor, positions: Tensor, angles: torch.dtype) -> Tensor:
    """R_p x of float32 vectors at the positions p, (m, d): the angle formed in the precision named, the rest in single."""
    i = torch.arange(0, x.shape[-1], 2, device=x.device, dtype=torch.float64)
    angle = positions.to(angles)[:, None] * (BASE ** (-i / x.shape[-1])).to(angles)
    cosine, sine = angle.cos().float(), angle.sin().float()
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2)


def draw_precision(ax: Any, rows: Rows) -> Columns:
    """The shift error of rotary logits in single precision grows with the position, unless the angles are in double.

    Root mean square error against position, both logarithmic. Dots of single-precision angles rise along a line of slope one;
    those of double-precision angles stay level near ten to the minus eight.
    """
    positions = sorted({row.point["position"] for row in rows})
    columns: dict[str, Any] = {"position": positions}
    for arm, label in (("", "angles in single precision"), (DOUBLE, "angles in double precision")):
        columns[label] = [
            float(np.mean([r.values["value"] for r in rows if (r.arm, r.point["position"]) == (arm, p)]))
            for p in positions
        ]
        ax.loglog(positions, columns[label], "o", label=label)
    first = columns["angles in single precision"][0]
    ax.loglog(positions, first * np.array(positions) / positions[0], color="0.6", linewidth=1, label="slope one")
    ax.set(xlabel="position", ylabel="change of the logit over ‖q‖ ‖k‖")
    ax.legend(fontsize="small")
    return columns


DOUBLE = "angles in single precision: in double"


@claim(
    source="su2024roformer",
    predicts=Scales("position", power=1, within=0.1),
    quick=Grid(position=[256, 1024, 4096, 16_384, 65_536], width=[64], pairs=[2000], seeds=6),
    full=Grid(position=[256, 1024, 4096, 16_384, 65_536, 262_144], width=[64, 128], pairs=[10_000], seeds=20),
    controls={DOUBLE: dict(double=True)},
    figures=(draw_precision,),
)
def rope_relative_single_precision(
    position: int, width: int, pairs: int, seed: int, double: bool = False
) -> dict[str, float]:
    r"""With angles in single precision the distance is forgotten in proportion to the position.

    The product $p theta_i$ of a position and a frequency is rounded to a relative $2^(-24)$, hence the angle, and with it the
    logit, to $p theta_i 2^(-24)$: relative positions hold only up to an error in proportion to the absolute one, a thousandth of
    the logit's scale at a million. The value is the root mean square change of the logit over $norm(q) norm(k)$ when both tokens move
    from the start to positions between $p$ and $2 p$, over random pairs up to 64 apart. In the control the angle alone is formed in
    double precision, as the networks of this laboratory do, and the error does not grow.
    """
    draws = torch.Generator().manual_seed(seed)
    q, k = gaussian(draws, 2, pairs, width).float()
    offset = torch.randint(64, (pairs,), generator=draws, device="cpu").to(q.device)
    start = torch.randint(position, 2 * position, (pairs,), generator=draws, device="cpu").to(q.device)
    angles = torch.float64 if double else torch.float32
    logits = [
        (turned(q, s, angles) * turned(k, s + offset, angles)).sum(1) / (q.norm(dim=1) * k.norm(dim=1))
        for s in (torch.zeros_like(start), start)
    ]
    return {"value": float((logits[1] - logits[0]).double().square().mean().sqrt())}


# Sinusoids


def table(kind: str, length: int, width: int, draws: torch.Generator) -> Tensor:
    """Vectors of the positions 0 … length − 1, (length, d): sinusoids, sines alone, or a table of random entries."""
    drawn = gaussian(draws, length, width)
    if kind == "sines":
        return sinusoidal(length, 2 * width, drawn)[:, 0::2]
    return sinusoidal(length, width, drawn) if kind == "sinusoids" else drawn


def shift_map(shift: int, width: int, like: Tensor) -> Tensor:
    """The block-diagonal rotation that takes the sinusoid of every position p to that of p + shift, (d, d)."""
    angle = shift * BASE ** (-torch.arange(0, width, 2, dtype=like.dtype, device=like.device) / width)
    blocks = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
    return torch.block_diag(*blocks)


@claim(
    source="vaswani2017attention",
    predicts=AtMost(1e-12),
    quick=Grid(shift=[1, 16, 256], width=[16, 64], seeds=3),
    full=Grid(shift=[1, 16, 256, 4096], width=[16, 64, 512], seeds=5),
    controls={
        "sinusoids: a table without structure": dict(kind="table"),
        "a cosine with every sine: sines alone": dict(kind="sines"),
    },
)
def sinusoidal_pe_shift(shift: int, width: int, seed: int, kind: str = "sinusoids") -> float:
    r"""A shift of the position is one rotation of the sinusoid, the same at every position.

    Let $e_t$ have the coordinates $sin(t omega_i), cos(t omega_i)$. By the addition theorem $e_(t + k) = M_k e_t$ for all $t$,
    where $M_k$ turns the $i$-th pair by $k omega_i$: an orthogonal matrix that does not depend on $t$ @vaswani2017attention. The value
    is $norm(E_k - E_0 M_k^top) \/ norm(E_k)$ over as many positions as sixteen widths, or the distance of $M_k$ from an orthogonal
    matrix if that is larger. The controls, a table of random entries, as a learned one starts, and sines of twice as many
    frequencies without their cosines, are given the best matrix there is, by least squares; there is none that would do.
    """
    draws = torch.Generator().manual_seed(seed)
    vectors = table(kind, 16 * width + shift, width, draws)
    start, end = vectors[: 16 * width], vectors[shift:]
    if kind != "sinusoids":
        map_ = torch.linalg.lstsq(start, end).solution.T
        return float((end - start @ map_.T).norm() / end.norm())
    map_ = shift_map(shift, width, start)
    skew = float((map_ @ map_.T - torch.eye(width, dtype=map_.dtype, device=map_.device)).abs().max())
    return max(float((end - start @ map_.T).norm() / end.norm()), skew)


def draw_products(ax: Any, rows: Rows) -> Columns:
    """Inner products of sinusoids against the offset: one curve for every start, until content is added.

    Inner product over half the width. The products of sinusoids from three starting positions lie on one falling, rippled
    curve; with content they scatter around it.
    """
    columns: dict[str, Any] = {"offset": np.arange(len(rows[0].values["from 0"]))}
    for arm, mark, color in ((CONTENT, "x", "C1"), ("", "-", "C0")):
        row = next(row for row in rows if row.arm == arm and not row.error)
        for start in ("from 0", "from 10", "from 30"):
            name = f"{start}, with content" if arm else start
            columns[name] = row.values[start]
            label = {"from 0": "with content" if arm else "sinusoids"}.get(start)
            ax.plot(columns["offset"], columns[name], mark, color=color, label=label)
    ax.set(xlabel="offset t − s", ylabel="inner product over d/2")
    ax.legend()
    return columns


CONTENT = "positions alone: content is added"


@claim(
    source="vaswani2017attention",
    predicts=AtMost(1e-12),
    quick=Grid(width=[16, 64], length=[128], seeds=3),
    full=Grid(width=[16, 64, 512], length=[128, 1024], seeds=5),
    controls={
        CONTENT: dict(content=1.0),
        "the plain inner product: after maps of query and key": dict(mapped=True),
        "sinusoids: a table without structure": dict(kind="table"),
    },
    figures=(draw_products,),
)
def sinusoidal_pe_shift_products(
    width: int, length: int, seed: int, content: float = 0.0, mapped: bool = False, kind: str = "sinusoids"
) -> dict[str, Any]:
    r"""Inner products of sinusoids depend on the offset of the positions alone.

    With the rotations $M_k$ of a shift, $chevron.l e_s, e_t chevron.r = chevron.l e_0, M_(t - s) e_0 chevron.r
    = sum_i cos((t - s) omega_i)$ @vaswani2017attention. The value is the largest change of an inner product when both positions move
    by one, over $d\/2$; the distance from the closed form, in the same unit, is recorded and counts where the hypotheses hold. This
    does not make attention relative: the controls add content to each position, or take the products after two linear maps,
    as attention does.
    """
    draws = torch.Generator().manual_seed(seed)
    vectors = table(kind, length, width, draws) + content * gaussian(draws, length, width)
    maps = gaussian(draws, 2, width, width) / width**0.5
    left, right = (vectors @ maps[0], vectors @ maps[1]) if mapped else (vectors, vectors)
    products = left @ right.T / (width / 2)
    time = torch.arange(length, dtype=products.dtype, device=products.device)
    frequencies = BASE ** (-torch.arange(0, width, 2, dtype=products.dtype, device=products.device) / width)
    formula = ((time[:, None] - time)[..., None] * frequencies).cos().mean(-1)
    moved = float((products[1:, 1:] - products[:-1, :-1]).abs().max())
    distance = float((products - formula).abs().max())
    bare = kind == "sinusoids" and not content and not mapped
    curves = {f"from {s}": products[s, s : s + length - 30] for s in (0, 10, 30)}
    return {"value": max(moved, distance) if bare else moved, "from the closed form": distance, **curves}


if __name__ == "__main__":
    script(__file__)
