"""The loaders against what the packages ship, their splits and hashes, and the draws."""

import hashlib
import random
import socket
import sys
from collections import Counter
from datetime import datetime

import numpy as np
import pytest
import torch

import lemmata.studies.data as data
from lemmata.studies.data import DIGITS, DataError, digits, gaussian, images, mnist1d, one_hot, text
from lemmata.studies.data._checked import fingerprint

TABLES = {"breast_cancer": data.breast_cancer, "diabetes": data.diabetes, "wine": data.wine}
LOADERS = {
    **TABLES,
    "digits": digits,
    "mnist1d": mnist1d,
    "sunspots": data.sunspots,
    "karate": data.karate,
    "atlas": data.atlas,
    "english": data.english,
    "dates": lambda: data.dates(50, torch.Generator().manual_seed(0)),
}


@pytest.fixture
def fresh():
    """Loaders that remember nothing, before and after."""
    images._generated.cache_clear()
    text._whole.cache_clear()
    yield
    images._generated.cache_clear()
    text._whole.cache_clear()


@pytest.fixture
def pixels():
    return pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)


def test_every_digit_is_scikit_learns_own(pixels):
    inputs, labels = digits()
    raw, named = pixels
    scale = (raw - raw.mean(0)).std()
    theirs = {tuple(np.round((row - raw.mean(0)) / scale, 4)): label for row, label in zip(raw, named, strict=True)}
    ours = [tuple(np.round(row, 4)) for row in inputs.double().numpy()]
    near = sum(theirs.get(row) == label for row, label in zip(ours, labels.tolist(), strict=True))
    assert len(ours) == DIGITS and near > 0.9 * DIGITS  # the rest differ in the last digit kept, by float32
    assert np.bincount(labels.numpy()).tolist() == np.bincount(named).tolist()


def test_training_images_are_standardised_and_the_rest_by_the_same_numbers():
    torch.set_default_dtype(torch.float64)
    try:
        inputs, labels = digits(500)
        rest, others = digits(500, held_out=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert inputs.dtype == torch.float64 and labels.dtype == torch.int64
    assert inputs.mean(0).abs().max() < 1e-12 and abs(inputs.square().sum(1).mean() - 64) < 1e-10
    assert len(rest) == len(others) == DIGITS - 500
    assert 0.01 < rest.mean(0).abs().max() < 1 and abs(rest.square().sum(1).mean() - 64) < 3


def test_a_smaller_set_is_part_of_a_larger_one():
    assert torch.equal(digits(100)[1], digits(500)[1][:100])
    assert torch.equal(digits(100, held_out=True)[1], digits()[1][100:])
    assert torch.equal(digits(100)[0], digits(100)[0])
    assert set(digits(100)[1].tolist()) == set(range(10))


def test_images_are_the_same_pixels():
    images, _ = digits(10, images=True)
    assert images.shape == (10, 1, 8, 8)
    assert torch.equal(images.flatten(1), digits(10)[0])


@pytest.mark.parametrize("n", [0, -1, DIGITS + 1, 2.0, True, "500"])
def test_impossible_sizes(n):
    with pytest.raises(DataError, match=rf"n={n!r} .*from 1 to 1797"):
        digits(n)


def test_nothing_held_out():
    with pytest.raises(DataError, match=r"no image held out: .* n=1297"):
        digits(held_out=True)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r'pip install "lemmata\[studies\]"'):
        digits(10)


def test_one_hot():
    assert one_hot(torch.tensor([3, 0]), classes=4).tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


def test_a_seed_means_the_same_draws_in_every_dtype():
    single = gaussian(torch.Generator().manual_seed(5), 1000)
    torch.set_default_dtype(torch.float64)
    try:
        double = gaussian(torch.Generator().manual_seed(5), 1000)
    finally:
        torch.set_default_dtype(torch.float32)
    assert single.dtype == torch.float32 and torch.equal(double.float(), single)
    assert abs(double.mean()) < 0.15 and abs(double.std() - 1) < 0.1


def shipped(name):
    source = pytest.importorskip("sklearn.datasets")
    options = {"scaled": False} if name == "diabetes" else {}
    inputs, targets = getattr(source, f"load_{name}")(return_X_y=True, **options)
    return np.column_stack([inputs, targets])


def stretched(columns, like):
    """Columns mapped affinely onto the range that `like` has: undoes any standardisation."""
    unit = (columns - columns.min(0)) / (columns.max(0) - columns.min(0))
    return like.min(0) + unit * (like.max(0) - like.min(0))


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_is_scikit_learns_own(name):
    x_train, y_train, x_test, y_test = (part.double().numpy() for part in TABLES[name]())
    theirs = shipped(name)
    inputs, targets = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    ours = stretched(np.column_stack([inputs, targets]), theirs)
    apart = np.abs((ours[:, None] - theirs[None]) / np.ptp(theirs, axis=0)).max(-1)  # (ours, theirs)
    assert ours.shape == theirs.shape and apart.min(1).max() < 1e-5
    assert sorted(apart.argmin(1)) == list(range(len(theirs)))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_standardised_by_its_training_rows(name):
    x_train, y_train, x_test, y_test = TABLES[name]()
    assert len(x_train) == len(y_train) == int(0.8 * (len(x_train) + len(x_test))) and len(x_test) == len(y_test)
    assert x_train.mean(0).abs().max() < 1e-5 and (x_train.std(0, correction=0) - 1).abs().max() < 1e-5
    assert 1e-3 < x_test.mean(0).abs().max() < 1
    if y_train.is_floating_point():
        assert y_train.shape[1:] == (1,) and abs(y_train.mean()) < 1e-5 and abs(y_train.std(correction=0) - 1) < 1e-5
    else:
        assert set(y_train.tolist()) == set(y_test.tolist()) == set(range(int(y_train.max()) + 1))


@pytest.mark.parametrize("load", [*TABLES.values(), mnist1d])
def test_no_test_row_is_a_training_row(load):
    x_train, _, x_test, _ = load()
    train, test = ({tuple(row) for row in part.tolist()} for part in (x_train, x_test))
    assert len(train) == len(x_train) and len(test) == len(x_test) and not train & test


def test_mnist1d_is_the_packages_own():
    made = pytest.importorskip("mnist1d.data").make_dataset()
    x_train, y_train, x_test, y_test = mnist1d()
    assert np.abs(x_train.numpy() - made["x"]).max() < 1e-6 and np.array_equal(y_train.numpy(), made["y"])
    assert np.abs(x_test.numpy() - made["x_test"]).max() < 1e-6 and np.array_equal(y_test.numpy(), made["y_test"])
    whole = torch.cat([x_train, x_test]).double()
    assert abs(whole.mean()) < 1e-6 and abs(whole.var() - 1) < 1e-4


def test_shuffled_signals_are_the_same_numbers_in_one_other_order():
    plain, moved = mnist1d(), mnist1d(shuffled=True)
    assert torch.equal(plain[1], moved[1]) and torch.equal(plain[3], moved[3])
    matches = (plain[0][:, :, None] == moved[0][:, None, :]).all(0)  # column i of one is column j of the other
    assert torch.equal(matches.sum(0), torch.ones(40, dtype=torch.int64))
    assert torch.equal(plain[2][:, matches.int().argmax(0)], moved[2])
    assert matches.diagonal().sum() < 5
    assert torch.equal(moved[0], mnist1d(shuffled=True)[0])


def test_mnist1d_leaves_the_global_generators_as_they_were(fresh):
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    mnist1d()
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert before[0] == after[0] and torch.equal(before[2], after[2])
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))


def test_what_a_caller_writes_into_a_tensor_stays_with_the_caller():
    mnist1d()[0].zero_()
    data.english().train.zero_()
    assert mnist1d()[0].abs().max() > 1 and data.english().train.max() > 90


def altered(module, function, monkeypatch, change):
    """Let a package's own function return something else."""
    loaded = pytest.importorskip(module)
    original = getattr(loaded, function)
    monkeypatch.setattr(loaded, function, lambda *a, **k: change(original(*a, **k)))


def bumped(pair):
    pair[0][5, 2] += 0.01
    return pair


@pytest.mark.parametrize("name", [*TABLES, "digits"])
def test_a_changed_table_is_refused(name, monkeypatch):
    altered("sklearn.datasets", f"load_{name}", monkeypatch, bumped)
    with pytest.raises(DataError, match=rf"{name} is not the data .* constraints.txt"):
        LOADERS[name]()


def test_a_changed_label_is_refused(monkeypatch):
    def swap(pair):
        pair[1][[0, -1]] = pair[1][[-1, 0]]
        return pair

    altered("sklearn.datasets", "load_wine", monkeypatch, swap)
    with pytest.raises(DataError, match="wine is not the data"):
        data.wine()


def test_changed_signals_are_refused(monkeypatch, fresh):
    altered("mnist1d.data", "make_dataset", monkeypatch, lambda made: made | {"x": made["x"] + 1e-3})
    with pytest.raises(DataError, match="mnist1d is not the data"):
        mnist1d()


def test_a_changed_series_is_refused(monkeypatch):
    class Reversed:
        def __init__(self, loaded):
            self.endog = np.asarray(loaded.endog)[::-1]

    altered("statsmodels.datasets.sunspots", "load", monkeypatch, Reversed)
    with pytest.raises(DataError, match="sunspots is not the data"):
        data.sunspots()


def test_changed_graphs_are_refused(monkeypatch):
    def cut(graph):
        graph.remove_edge(0, 1)
        return graph

    altered("networkx", "karate_club_graph", monkeypatch, cut)
    altered("networkx", "graph_atlas_g", monkeypatch, lambda graphs: graphs[::-1])
    with pytest.raises(DataError, match="karate is not the data"):
        data.karate()
    with pytest.raises(DataError, match="atlas is not the data"):
        data.atlas()


def test_an_edited_text_is_refused(monkeypatch, fresh, tmp_path):
    edited = tmp_path / "edited.txt"
    edited.write_bytes(text.FILE.read_bytes().replace(b"assert", b"insert", 1))
    monkeypatch.setattr(text, "FILE", edited)
    with pytest.raises(DataError, match="english is not the data"):
        data.english()
    edited.unlink()
    with pytest.raises(DataError, match=r"edited\.txt cannot be read .* install lemmata again"):
        data.english()


def test_a_fingerprint_is_of_the_numbers_their_shape_and_their_order():
    a = np.arange(6.0)
    assert fingerprint(a) == fingerprint(a.astype(np.int32)) == fingerprint(a + 1e-12)
    others = [a + 1e-8, a[::-1], a.reshape(2, 3), a[:5]]
    assert len({fingerprint(a), *map(fingerprint, others), fingerprint(a, a), fingerprint(a[:3], a[3:])}) == 7


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("sklearn.datasets", ["breast_cancer", "wine", "diabetes", "digits"]),
        ("mnist1d.data", ["mnist1d"]),
        ("statsmodels.datasets.sunspots", ["sunspots"]),
        ("networkx", ["karate", "atlas"]),
    ],
)
def test_without_the_package_the_extra_is_named(module, names, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for name in names:
        with pytest.raises(DataError, match=r'come with .* pip install "lemmata\[studies\]"'):
            LOADERS[name]()


def test_nothing_is_downloaded(monkeypatch, fresh):
    def refuse(*args, **kwargs):
        raise AssertionError("a loader opened a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for load in LOADERS.values():
        load()


@pytest.mark.parametrize("name", LOADERS)
def test_licence_and_source_are_named(name):
    described = getattr(data, name).__doc__
    assert "Licence: " in described and "Source: " in described


def floats(item):
    parts = item if isinstance(item, tuple | list) else (item,)
    return [part for part in parts if isinstance(part, torch.Tensor) and part.is_floating_point()]


@pytest.mark.parametrize("name", sorted(set(LOADERS) - {"english", "dates"}))
def test_numbers_come_in_the_default_dtype_on_the_default_device(name):
    single = floats(LOADERS[name]())
    torch.set_default_dtype(torch.float64)
    try:
        double = floats(LOADERS[name]())
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(single) == len(double) > 0
    assert all(a.dtype == torch.float32 and b.dtype == torch.float64 for a, b in zip(single, double, strict=True))
    assert all(torch.allclose(b.float(), a, rtol=0, atol=1e-5) for a, b in zip(single, double, strict=True))
    with torch.device("meta"):
        assert all(part.device.type == "meta" for part in floats(LOADERS[name]()))


def test_sunspots_are_the_years_in_order():
    counts = np.asarray(pytest.importorskip("statsmodels.datasets.sunspots").load().endog)
    train, test = data.sunspots()
    both = torch.cat([train, test]).double().numpy()
    assert len(train) == 1921 - 1700 and np.corrcoef(both, counts)[0, 1] > 1 - 1e-10
    assert abs(train.mean()) < 1e-6 and abs(train.std(correction=0) - 1) < 1e-6
    assert int(both.argmax()) + 1700 == 1957  # the strongest cycle on record


def test_the_karate_club():
    club = data.karate()
    assert torch.equal(club.adjacency, club.adjacency.T) and club.adjacency.diagonal().sum() == 0
    assert set(club.adjacency.unique().tolist()) == {0, 1} and club.adjacency.sum() == 2 * 78
    assert club.factions[0] == 0 and club.factions[33] == 1 and torch.bincount(club.factions).tolist() == [17, 17]
    assert club.communities[club.train].sort().values.tolist() == [0, 1, 2, 3]
    # Modularity by its definition; no partition of this graph has more than 0.4198 [brandes2008modularity].
    degree = club.adjacency.sum(1)
    same = club.communities[:, None] == club.communities[None]
    q = ((club.adjacency - torch.outer(degree, degree) / 156) * same).sum() / 156
    assert 0.415 < q < 0.4198


def test_the_karate_club_is_pytorch_geometrics():
    theirs = pytest.importorskip("torch_geometric.datasets").KarateClub()[0]
    club = data.karate()
    assert torch.equal(club.adjacency.nonzero().T, theirs.edge_index)
    assert torch.equal(club.communities, theirs.y) and torch.equal(club.train, theirs.train_mask)


def connected(adjacency):
    reach = torch.linalg.matrix_power(adjacency + torch.eye(len(adjacency)), len(adjacency))
    return bool((reach > 0).all())


def test_the_atlas_is_complete():
    """Counts of graphs, and of connected ones, with 0 to 7 nodes: OEIS A000088 and A001349."""
    graphs = data.atlas()
    assert len(graphs) == 1253 and graphs[0].shape == (0, 0)
    assert all(torch.equal(a, a.T) and a.diagonal().sum() == 0 for a in graphs)
    assert Counter(map(len, graphs)) == dict(enumerate([1, 1, 2, 4, 11, 34, 156, 1044]))
    assert Counter(len(a) for a in graphs[1:] if connected(a)) == dict(enumerate([1, 1, 2, 6, 21, 112, 853], start=1))
    assert all(torch.equal(a, b) for a, b in zip(data.atlas(7), graphs[-1044:], strict=True))


@pytest.mark.parametrize("nodes", [-1, 8, 2.5, True, "3"])
def test_graphs_beyond_the_atlas(nodes):
    with pytest.raises(DataError, match=r"from 0 to 7"):
        data.atlas(nodes)


def test_english_is_its_file_in_three_parts():
    parts = data.english()
    whole = text.FILE.read_text(encoding="utf-8")
    read = "".join(parts.alphabet[code] for part in parts[:3] for code in part.tolist())
    assert read == whole and list(parts.alphabet) == sorted(set(whole))
    assert [round(100 * len(part) / len(whole), 3) for part in parts[:3]] == [90.0, 5.0, 5.0]
    assert (text.FILE.parent / "LICENSE-PSF.txt").read_text().count("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2") > 0
    assert 3.8 < entropy(parts.train) < 5  # bits a character, of one character alone: English is near 4.2


def entropy(codes):
    share = torch.bincount(codes).double() / len(codes)
    return -(share * share.clamp_min(1e-300).log2()).sum().item()


READINGS = ["%d %B %Y", "%B %d, %Y", "%b %d, %Y", "%d %b %y", "%d/%m/%y", "%d.%m.%Y", "%Y%m%d"]


def spelled(drawn):
    source = ["".join(drawn.source_alphabet[k] for k in row) for row in drawn.source.tolist()]
    return [line.rstrip("_") for line in source], [
        "".join(drawn.target_alphabet[k] for k in row) for row in drawn.target.tolist()
    ]


def reading(line):
    """The one date that Python's own parser reads; its century of two digits turns at 69, ours at 50."""
    found = {}
    for number, form in enumerate(READINGS):
        try:
            day = datetime.strptime(line, form)
        except ValueError:
            continue
        found[number] = day.replace(year=day.year - 100 if "%y" in form and day.year > 2049 else day.year)
    assert len({day for day in found.values()}) == 1, line
    return min(found), found[min(found)].date().isoformat()


@pytest.mark.parametrize("held_out", [False, True])
def test_every_written_date_means_its_target(held_out):
    drawn = data.dates(2000, torch.Generator().manual_seed(1), held_out=held_out)
    written, iso = spelled(drawn)
    read = [reading(line) for line in written]
    assert [day for _, day in read] == iso
    ways = np.bincount([way for way, _ in read], minlength=7)
    assert ways.sum() == 2000 and ways[[0, 4, 5, 6]].min() > 200 and (ways[1] + ways[2]) > 400
    assert drawn.source.shape == (2000, 18) and drawn.target.shape == (2000, 10)
    assert drawn.target.min() >= 1 and drawn.target.max() < len(drawn.target_alphabet)
    assert drawn.source.max() < len(drawn.source_alphabet) == len(set(drawn.source_alphabet))


def test_held_out_days_are_no_training_days():
    train, other = (
        set(spelled(data.dates(20000, torch.Generator().manual_seed(2), held_out=held_out))[1])
        for held_out in (False, True)
    )
    assert not train & other and len(other) > 3000


def test_a_seed_means_the_same_dates():
    first, again, other = (data.dates(1000, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.source, again.source) and not torch.equal(first.target, other.target)
    written = "\n".join(f"{a} {b}" for a, b in zip(*spelled(first), strict=True))
    assert hashlib.sha256(written.encode()).hexdigest()[:16] == "97460c85aeb10f6f"


@pytest.mark.parametrize("n", [0, -3, 2.0, True, "10"])
def test_impossible_numbers_of_dates(n):
    with pytest.raises(DataError, match=r"at least 1"):
        data.dates(n, torch.Generator())


def test_dates_are_drawn_on_the_cpu():
    class Elsewhere:
        device = torch.device("meta")

    with pytest.raises(DataError, match=r"lives on meta: pass torch\.Generator"):
        data.dates(3, Elsewhere())
