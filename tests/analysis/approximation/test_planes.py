"""The cell complex in a plane: closed forms, exact polygons cut one by one in fractions, and sampling."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.analysis.approximation.planes import SQUARE

ORIGIN, AXES = torch.zeros(2), torch.eye(2)


def network(widths, seed, draw=torch.randn):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for n, m in itertools.pairwise(widths):
        layers += [nn.Linear(n, m, dtype=torch.float64), nn.ReLU()]
        for part, value in (("weight", draw(m, n, generator=generator)), ("bias", draw(m, generator=generator))):
            getattr(layers[-2], part).data.copy_(value)
    return nn.Sequential(*layers[:-1])


def small_integers(*shape, generator):
    return torch.randint(-1, 2, shape, generator=generator)


def one_layer(lines):
    lines = torch.tensor(lines, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(2, len(lines)), nn.ReLU(), nn.Linear(len(lines), 1)).double()
    model[0].weight.data, model[0].bias.data = lines[:, :2].clone(), lines[:, 2].clone()
    return model


def enumerate_in_fractions(model, window):
    """The cells as polygons with fractional corners, each cut by each unit in turn: areas, for comparison."""
    cells = [([tuple(map(Fraction, p)) for p in window], np.array([[1, 0, 0], [0, 1, 0]], dtype=object) * Fraction(1))]
    exact = np.vectorize(Fraction, otypes=[object])
    for layer in model:
        if isinstance(layer, nn.Linear):
            W, b = exact(layer.weight.detach().numpy()), exact(layer.bias.detach().numpy())
            cells = [(p, W.dot(forms) + b[:, None] * np.array([0, 0, 1], dtype=object)) for p, forms in cells]
            continue
        parts = []
        for polygon, forms in cells:
            pieces = [polygon]
            for a, b, c in forms:
                pieces = [part for piece in pieces for part in halves(piece, a, b, c)]
            for piece in pieces:
                x = [sum(coordinate) / len(piece) for coordinate in zip(*piece, strict=True)]
                on = np.array([f[0] * x[0] + f[1] * x[1] + f[2] > 0 for f in forms])
                parts.append((piece, np.where(on[:, None], forms, Fraction(0))))
        cells = parts
    return sorted(float(area(polygon)) for polygon, _ in cells)


def halves(polygon, a, b, c):
    values = [a * x + b * y + c for x, y in polygon]
    if not min(values) < 0 < max(values):
        return [polygon]
    found = []
    for sign in (1, -1):
        part = []
        for p, q, u, v in zip(polygon, [*polygon[1:], polygon[0]], values, [*values[1:], values[0]], strict=True):
            part += [p] if sign * u >= 0 else []
            part += [tuple((v * s - u * t) / (v - u) for s, t in zip(p, q, strict=True))] if u * v < 0 else []
        found.append(part)
    return found


def area(polygon):
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in zip(polygon, [*polygon[1:], polygon[0]], strict=True)) / 2


@pytest.mark.parametrize(("n", "cells"), [(3, 7), (6, 22), (12, 79)])
def test_zaslavsky(n, cells):
    found = la.regions_in_plane(network([2, n, 1], n), ORIGIN, *AXES, torch.tensor(SQUARE) * 1e4)
    assert found.regions == found.activation_patterns == cells and found.euler == 1 and found.undecided == 0


@pytest.mark.parametrize("draw", [torch.randn, small_integers], ids=["general", "degenerate"])
@pytest.mark.parametrize("widths", [[2, 6, 1], [2, 4, 4, 1], [2, 3, 3, 3, 1]], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_cells_of_deep_networks_in_exact_arithmetic(widths, seed, draw):
    model = network(widths, seed, draw)
    truth = enumerate_in_fractions(model, [(-2, -2), (2, -2), (2, 2), (-2, 2)])
    found = la.regions_in_plane(model, ORIGIN, *AXES, torch.tensor(SQUARE) * 2)
    assert found.regions == len(truth) and found.euler == 1
    np.testing.assert_allclose(sorted(found.areas.tolist()), truth, rtol=1e-9, atol=1e-14)
    assert found.activation_patterns == found.regions
    assert draw is small_integers or found.undecided == 0


def test_other_counts_are_told_apart():
    """The comparison above would see a cell too few: a network with one unit left out has fewer."""
    model = network([2, 4, 4, 1], 0)
    truth = enumerate_in_fractions(model, SQUARE)
    model[0].weight.data[0], model[0].bias.data[0] = 0, -1
    assert la.regions_in_plane(model, ORIGIN, *AXES).regions < len(truth)


@pytest.mark.parametrize(
    ("lines", "cells"),
    [
        ([[1, 0, 0]] * 3, 2),  # coincident
        ([[1, 0, 0], [-2, 0, 0]], 2),  # coincident, the other way
        ([[1, 0, 0], [1, 0, 0.5], [3, 0, -1]], 4),  # parallel
        ([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, -0.3, 0]], 8),  # concurrent
        ([[0, 0, 1], [0, 0, -1], [0, 0, 0]], 1),  # units that never switch
        ([[1, 0, 1], [0, 1, 5]], 1),  # along a side of the window; outside of it
        ([[1, 1, 0], [1, -1, 0]], 4),  # through the window's corners
        ([[1, 0, 0], [1, 0, 1e-9]], 3),  # nearly coincident, but two
    ],
)
def test_degenerate_lines(lines, cells):
    found = la.regions_in_plane(one_layer(lines), ORIGIN, *AXES)
    assert (found.regions, found.euler) == (cells, 1)
    assert float(found.areas.sum()) == pytest.approx(4, abs=1e-14)


def test_never_more_patterns_than_cells_by_sampling():
    model = network([2, 16, 16, 1], 0)
    found = la.regions_in_plane(model, ORIGIN, *AXES)
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    h, seen = torch.cartesian_prod(x, x), []
    for layer in model[:-1]:
        h = layer(h)
        seen += [h > 0] if isinstance(layer, nn.ReLU) else []
    patterns = len(torch.cat(seen, 1).unique(dim=0))
    assert 0.5 * found.regions < patterns < found.regions


def test_sawtooth_in_the_plane():
    """Tents of the first coordinate composed three times: eight strips, of the second coordinate nothing."""
    tent = [nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1)]
    model = nn.Sequential(nn.Linear(2, 1), *(layer for _ in range(3) for layer in tent)).double()
    for part, value in zip(model.parameters(), ([[1, 0]], 0, [[1]] * 3, [0, -0.5, -1], [[2, -4, 2]], 0), strict=True):
        part.data.copy_(torch.tensor(value))
    found = la.regions_in_plane(model, ORIGIN, *AXES, [[0, 0], [1, 0], [1, 1], [0, 1]])
    assert found.regions == 8
    torch.testing.assert_close(found.areas, torch.full((8,), 1 / 8, dtype=torch.float64))
    assert found.slopes[..., 0].abs().unique().tolist() == [8.0] and not found.slopes[..., 1].any()


def test_slopes_are_finite_differences():
    model = network([5, 7, 7, 2], 1)
    generator = torch.Generator().manual_seed(2)
    origin, u, v = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    found = la.regions_in_plane(model, origin, u, v)
    chosen = found.areas.topk(20).indices
    for i in chosen.tolist():
        centre = found.vertices[found.corners[found.offsets[i] : found.offsets[i + 1]]].mean(0)
        x, step = origin + centre[0] * u + centre[1] * v, 1e-6
        differences = torch.stack([(model(x + step * d) - model(x - step * d)) / (2 * step) for d in (u, v)], dim=1)
        torch.testing.assert_close(found.slopes[i], differences.detach(), rtol=1e-6, atol=1e-8)


def test_borders_are_where_units_vanish():
    model = network([2, 8, 8, 1], 3)
    found = la.regions_in_plane(model, ORIGIN, *AXES)
    middle = found.vertices[found.edges].mean(1)
    first = model[0](middle)
    second = model[2](first.relu())
    for layer, z in enumerate((first, second)):
        assert float(z[found.edge_layers == layer].abs().min(1).values.max().detach()) < 1e-13
    border = middle[found.edge_layers == -1]
    assert torch.equal(border.abs().max(1).values, torch.ones(len(border), dtype=torch.float64))
    inside = found.neighbours.min(1).values >= 0
    assert torch.equal(inside, found.edge_layers >= 0)
    a, b = found.neighbours[inside].T
    assert (found.patterns[a] != found.patterns[b]).any(1).all()


def test_triangle_and_turned_windows():
    model = network([2, 6, 6, 1], 4)
    corners = torch.tensor([[-1.0, -1], [1, -1], [0, 1]])
    found = la.regions_in_plane(model, ORIGIN, *AXES, corners)
    turned = la.regions_in_plane(model, ORIGIN, *AXES, corners.flip(0))
    assert float(found.areas.sum()) == pytest.approx(2, abs=1e-14)
    assert found.euler == turned.euler == 1 and found.regions == turned.regions


@pytest.mark.parametrize(
    ("change", "error", "name", "remedy"),
    [
        (dict(window=[[0, 0], [1, 0]]), la.LemmataError, "window", "convex polygon"),
        (dict(window=[[0, 0, 0], [1, 0, 0], [0, 1, 0]]), ValueError, "window", "convex polygon"),
        (dict(window=[[0, 0], [1, 0], [0.2, 0.2], [0, 1]]), ValueError, "window", "convex polygon"),
        (dict(window=[[math.cos(4 * math.pi * k / 5), math.sin(4 * math.pi * k / 5)] for k in range(5)]), ValueError, "window", "convex"),
        (dict(window=[[0, 0], [1, 0], [0, math.nan]]), ArithmeticError, "window", "convex polygon"),
        (dict(v=2 * AXES[0]), ValueError, "u, v", "not parallel"),
        (dict(u=torch.zeros(3)), ValueError, "u", "shape"),
        (dict(origin=torch.tensor([0.0, math.inf])), ArithmeticError, "origin", "Clean"),
    ],
)  # fmt: skip
def test_bad_windows_and_planes(change, error, name, remedy):
    given = {"origin": ORIGIN, "u": AXES[0], "v": AXES[1], **change}
    with pytest.raises(error) as raised:
        la.regions_in_plane(network([2, 3, 1], 0), **given)
    assert isinstance(raised.value, la.LemmataError) and raised.value.name == name and remedy in str(raised.value)


def test_record_and_picture():
    found = la.regions_in_plane(network([2, 4, 3, 2], 0), ORIGIN, *AXES)
    again = la.PlaneRegions.from_dict(found.to_dict())
    assert repr(again) == repr(found) and torch.equal(again.patterns, found.patterns)
    assert torch.equal(again.slopes, found.slopes) and again.activation_patterns == found.regions
    ax = found.plot(output=1)
    assert len(ax.collections[0].get_paths()) == found.regions
    lifted = sum(int(np.isnan(line.get_xdata()).sum()) for line in ax.lines)
    assert lifted == int((found.edge_layers >= 0).sum())


def test_an_affine_model_has_one_cell():
    found = la.regions_in_plane(nn.Linear(2, 1), ORIGIN, *AXES)
    assert (found.regions, found.euler, found.activation_patterns) == (1, 1, 1)
    assert found.plot().collections


@pytest.mark.parametrize(("apart", "cells"), [(1e-12, 2), (1e-9, 3)])
def test_kinks_taken_for_one_are_no_proof(apart: float, cells: int) -> None:
    """Of three cells the middle one, narrower than the tolerance, is lost: a line, which has no tolerance, sees it."""
    model = one_layer([[1, 0, 0], [1, 0, -apart]])
    found = la.regions_in_plane(model, ORIGIN, *AXES)
    assert la.regions_on_line(model, -AXES[0], AXES[0]).regions == 3
    assert found.regions == cells and (found.undecided > 0) == (cells < 3)
