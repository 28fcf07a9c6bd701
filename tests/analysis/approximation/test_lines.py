"""Regions along segments and paths: closed forms, integer arithmetic, sampling; and what is refused."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lemmata.analysis as la
from lemmata.analysis.approximation import UNBOUNDED, affine_pieces, piecewise_linear
from lemmata.analysis.approximation.integers import cells_on_line
from lemmata.analysis.approximation.lines import FLOATS, INTEGERS


def filled(model, *values):
    for part, value in zip(model.parameters(), values, strict=True):
        part.data.copy_(torch.tensor(value, dtype=torch.float64))
    return model


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def random_network(widths, seed, activation=nn.ReLU):
    layers, generator = [], drawn(seed)
    for n, m in itertools.pairwise(widths):
        layers += [nn.Linear(n, m, dtype=torch.float64), activation()]
        for part in layers[-2].parameters():
            part.data.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """x + V relu(U x), all in ``forward``, and a maximum with another linear map."""

    def __init__(self, n, seed):
        super().__init__()
        self.U, self.V, self.W = (
            nn.Parameter(torch.randn(n, n, generator=drawn(seed + i), dtype=torch.float64)) for i in range(3)
        )

    def forward(self, x):
        return torch.maximum(x + F.relu(x @ self.U.T + 0.3) @ self.V.T, x @ self.W.T - 0.2)


def convolutional():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1), nn.AvgPool2d(2), nn.Dropout(0.5)]
    layers += [nn.Flatten(), nn.Linear(48, 6), nn.Hardtanh(), nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 2)]
    model = nn.Sequential(*layers).double()
    model[1].running_mean.normal_()
    model[1].weight.data.uniform_(0.5, 2)
    return model.eval()


KNOTS = [0.0, -0.5, -1.0]
CASES = {
    "mlp": (random_network([6, 12, 12, 12, 2], 0), (6,)),
    "leaky": (random_network([6, 12, 12, 2], 1, lambda: nn.LeakyReLU(0.3)), (6,)),
    "residual": (nn.Sequential(Residual(5, 0), Residual(5, 7), nn.Linear(5, 1).double()), (5,)),
    "convolutional": (convolutional(), (1, 8, 8)),
}


def ends(shape, seed, size=3.0):
    return size * torch.randn(2, *shape, generator=drawn(seed), dtype=torch.float64)


def in_integers(model, shape, start, end):
    net = piecewise_linear(model, shape)
    return cells_on_line(net, start.flatten().numpy(), end.flatten().numpy(), (Fraction(0), Fraction(1)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_floats_equal_integers(case, seed):
    model, shape = CASES[case]
    start, end = ends(shape, seed)
    found, truth = la.regions_on_line(model, start, end), in_integers(model, shape, start, end)
    assert found.method == FLOATS and found.regions == len(truth) > 3
    assert found.patterns.tolist() == [list(cell.pattern) for cell in truth]
    places = [float(cell.right) for cell in truth[:-1]]
    np.testing.assert_allclose(found.breakpoints, places, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_affine_between_breakpoints_and_bends_at_each(case):
    model, shape = CASES[case]
    start, end = ends(shape, 5)
    found = la.regions_on_line(model, start, end)
    t = torch.cat([torch.zeros(1), found.breakpoints, torch.ones(1)]).double()

    def f(t):
        with torch.no_grad():
            return model(torch.stack([start + s * (end - start) for s in t.tolist()])).flatten(1)

    middle = (f(t[:-1]) + f(t[1:])) / 2
    scale = f(t).abs().max()
    assert float((f((t[:-1] + t[1:]) / 2) - middle).abs().max() / scale) < 1e-13
    slopes = (f(t[1:]) - f(t[:-1])) / t.diff()[:, None]
    wide = (t.diff()[1:] > 1e-4) & (t.diff()[:-1] > 1e-4)
    bends = (slopes.diff(dim=0).abs() / scale).max(1).values[wide]
    assert float((bends > 1e-7).double().mean()) > 0.8  # units that dead ones follow bend nothing


def test_sampling_finds_no_more():
    model, start, end = CASES["mlp"][0], *ends((6,), 3)
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
    h, seen = start + t * (end - start), []
    for layer in model[:-1]:
        h = layer(h)
        seen += [h > 0] if isinstance(layer, nn.ReLU) else []
    switches = int((torch.cat(seen, 1).diff(dim=0)).any(1).sum())
    regions = la.regions_on_line(model, start, end).regions
    assert regions - 3 <= switches + 1 <= regions


@pytest.mark.parametrize(("n", "pieces"), [(1, 2), (5, 6), (30, 31)])
def test_one_layer_in_general_position(n, pieces):
    model = random_network([1, n, 1], n)
    found = la.regions_on_line(model, torch.tensor([-1e6]), torch.tensor([1e6]))
    assert found.regions == pieces == len(affine_pieces(model, *UNBOUNDED))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_sawtooth_has_coincident_kinks(k):
    tent = filled(nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1)), [[1.0]] * 3, KNOTS, [[2.0, -4, 2]], [0.0])
    model = nn.Sequential(*[tent] * k)
    found = la.regions_on_line(model, torch.zeros(1), torch.ones(1))
    assert found.regions == 2**k and found.method == INTEGERS
    assert found.breakpoints.tolist() == [i / 2**k for i in range(1, 2**k)]


@pytest.mark.parametrize(
    ("weight", "bias", "regions"),
    [
        ([[1.0], [1.0]], [-0.5, -0.5], 2),  # coincident
        ([[1.0], [-3.0]], [-0.5, 1.5], 2),  # the other way
        ([[0.0], [0.0]], [1.0, -1.0], 1),  # never
        ([[1.0], [1.0]], [0.0, -1.0], 1),  # at the ends
        ([[1.0], [1.0]], [-0.5, -0.5 - 2**-50], 3),  # nearly coincident, but two
        ([[0.1], [0.1 + 2**-56]], [-0.05, -0.05], 3),  # closer than rounding: 0.1 is no dyadic number
    ],
)
def test_degenerate_kinks(weight, bias, regions):
    model = filled(nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double(), weight, bias, [[1.0, 1]], 0)
    assert la.regions_on_line(model, torch.zeros(1), torch.ones(1)).regions == regions


def test_zero_biases_through_the_origin():
    model = random_network([4, 8, 8, 1], 0)
    for layer in (model[0], model[2], model[4]):
        layer.bias.data.zero_()
    end = ends((4,), 0)[0]
    found = la.regions_on_line(model, -end, end)
    assert found.regions == 2 and found.breakpoints.tolist() == [0.5]


def test_a_path_is_its_segments():
    model, shape = CASES["convolutional"]
    points = torch.randn(9, *shape, generator=drawn(0))
    found = la.regions_on_path(model, points)
    alone = [la.regions_on_line(model, a, b).regions for a, b in itertools.pairwise(points)]
    assert found.regions.tolist() == alone
    lengths = points.double().flatten(1).diff(dim=0).norm(dim=1)
    torch.testing.assert_close(found.lengths, lengths)
    assert found.per_length.value == pytest.approx((sum(alone) - 8) / float(lengths.sum()))


def test_the_interval_of_the_density_covers():
    """One layer of units: along random directions the density of kinks is known by sampling a long path."""
    model = random_network([3, 20, 1], 0)
    points = torch.rand(1501, 3, generator=drawn(1), dtype=torch.float64)
    truth = la.regions_on_path(model, points).per_length.value
    paths = [
        la.regions_on_path(model, torch.rand(25, 3, generator=drawn(2 + i), dtype=torch.float64)) for i in range(60)
    ]
    intervals = [path.per_length.interval() for path in paths]
    covered = sum(low <= truth <= high for low, high in intervals)
    assert 53 <= covered <= 60
    assert np.mean([high - low for low, high in intervals]) < truth
    assert sum(low <= 2 * truth <= high for low, high in intervals) < 6


def test_records_and_pictures():
    model = CASES["mlp"][0]
    line = la.regions_on_line(model, *ends((6,), 0))
    again = la.LineRegions.from_dict(line.to_dict())
    assert repr(again) == repr(line) and torch.equal(again.patterns, line.patterns)
    path = la.regions_on_path(model, ends((6,), 1))
    assert la.PathRegions.from_dict(path.to_dict()).to_dict() == path.to_dict()
    assert path.per_length.interval() == (-np.inf, np.inf)  # a single segment
    assert len(line.plot().lines) == 3 and path.plot().lines


REFUSED = [
    (nn.Tanh(), "1 (Tanh)"),
    (nn.GELU(), "1 (GELU)"),
    (nn.Softmax(-1), "1 (Softmax)"),
    (nn.LayerNorm(3), "1 (LayerNorm)"),
    (nn.MaxPool1d(3), "1 (MaxPool1d)"),
    (nn.Hardswish(), "1 (Hardswish)"),
]


@pytest.mark.parametrize(("module", "name"), REFUSED, ids=lambda part: str(part).split("(")[0])
def test_what_is_not_piecewise_linear_is_named(module, name):
    model = nn.Sequential(nn.Linear(2, 3), module)
    with pytest.raises(la.LemmataError) as raised:
        la.regions_on_line(model, torch.zeros(2), torch.ones(2))
    assert raised.value.name == name
    assert "use ReLU, LeakyReLU" in str(raised.value) or "Use average pooling" in str(raised.value)


def narrow(width):
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    model[0].weight = nn.Parameter(torch.zeros(width, 2))
    return model


def broken():
    model = random_network([2, 3, 1], 0)
    model[0].weight.data[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("model", "points", "error", "name", "remedy"),
    [
        (broken(), torch.zeros(2, 2), ArithmeticError, "0.weight", "last checkpoint"),
        (narrow(0), torch.zeros(2, 2), ValueError, "0.weight", "width of at least 1"),
        (nn.Sequential(nn.LazyLinear(2), nn.ReLU()), torch.zeros(2, 2), RuntimeError, "0.weight", "Run the model once"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout()), torch.zeros(2, 2), RuntimeError, "1 (Dropout)", "model.eval()"),
        (nn.Linear(2, 2), torch.full((2, 2), torch.nan), ArithmeticError, "points", "Clean the data"),
        (nn.Linear(2, 2), torch.zeros(1, 2), ValueError, "points", "n ≥ 2"),
        (nn.Linear(2, 2), torch.zeros(3, 2), ValueError, "points", "not all the same"),
        (nn.Linear(2, 2), torch.eye(3), ValueError, "points", "without the batch axis"),
        (nn.Linear(2, 2), torch.ones(2, 2, dtype=torch.long), ValueError, "points", ".double()"),
        (nn.LSTM(2, 2), torch.eye(2), ValueError, "LSTM", "returns the tensor"),
    ],
)
def test_bad_input(model, points, error, name, remedy):
    with pytest.raises(error) as raised:
        la.regions_on_path(model, points)
    assert isinstance(raised.value, la.LemmataError) and raised.value.name == name and remedy in str(raised.value)


def test_ends_of_two_shapes_are_refused():
    with pytest.raises(la.LemmataError, match="end: expected the shape of start.*of one shape"):
        la.regions_on_line(nn.Linear(2, 2), torch.zeros(2), torch.zeros(3))


def test_more_than_one_output_has_no_pieces():
    with pytest.raises(la.LemmataError, match="one output.*regions_on_line"):
        affine_pieces(random_network([1, 2, 2], 0))


def test_the_model_is_left_alone():
    model = convolutional().float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    la.regions_on_line(model, torch.zeros(1, 8, 8), torch.ones(1, 8, 8))
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_default_device_other_than_the_cpu_changes_nothing():
    model, shape = CASES["residual"]
    points = torch.randn(5, *shape, generator=drawn(0), dtype=torch.float64)
    plane = points[:3]
    expected = la.regions_on_path(model, points).regions, la.regions_in_plane(model, *plane)
    with torch.device("meta"):  # nothing can be computed there
        path, cells = la.regions_on_path(model, points), la.regions_in_plane(model, *plane)
        assert torch.equal(path.regions, expected[0]) and repr(cells) == repr(expected[1])
        assert float(cells.areas.sum()) == pytest.approx(4, abs=1e-12)


@pytest.mark.parametrize("ends", [(1, 0), (0, 0)])
def test_pieces_need_an_interval(ends):
    model = random_network([1, 2, 1], 0)
    with pytest.raises(
        la.LemmataError, match="left, right: expected an interval, left < right.*Pass the lower end first"
    ):
        affine_pieces(model, *(Fraction(end) for end in ends))


def test_no_border_seen_is_not_none_there():
    """A kink at 5, and steps about the origin that never meet it; an affine model has none anywhere."""
    points = torch.linspace(0, 1, 21, dtype=torch.float64)[:, None]
    kinked = filled(nn.Sequential(nn.Linear(1, 1), nn.ReLU()).double(), [[1.0]], [-5.0])
    found = la.regions_on_path(kinked, points).per_length
    assert found.value == 0 and found.interval()[1] == pytest.approx(3.0)
    assert la.regions_on_path(nn.Linear(1, 1).double(), points).per_length.interval() == (0, 0)
