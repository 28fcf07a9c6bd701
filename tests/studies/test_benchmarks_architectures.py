"""The benchmark compares equals and says so where it cannot; training side by side is training one by one.

Truth of the training: a loop written here with torch.optim and nothing of the lab. No time is asserted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lemmata.studies.benchmarks.architectures as benchmark
from lemmata.architectures.mlp import MLP
from lemmata.studies.benchmarks.architectures import Pair, compare, side_by_side
from lemmata.studies.training import train

TINY: dict[str, Callable[[], Pair]] = {
    "mlp": partial(benchmark.mlp, (3, 4, 2), 5),
    "cnn zeros": partial(benchmark.cnn, (2, 3, 3), 5, 2, "zeros"),
    "cnn circular": partial(benchmark.cnn, (2, 3, 3), 5, 2, "circular"),
    "block batch": partial(benchmark.block, 4, 5, 3, "batch"),
    "block group": partial(benchmark.block, 4, 5, 3, "group"),
    **{kind: partial(benchmark.recurrent, kind, 4, 3, 5) for kind in ("RNN", "LSTM", "GRU")},
    "attention": partial(benchmark.attention, 8, 2, 3, 2),
    "encoder pre": partial(benchmark.encoder, "pre", 8, 2, 3, 2),
    "encoder post": partial(benchmark.encoder, "post", 8, 2, 3, 2),
    **{kind: partial(benchmark.graph, kind, 6, 11, 4, 2) for kind in ("GCN", "GIN", "GAT", "GATv2")},
    "ode": partial(benchmark.ode, 3, 4, 2, 5),
}
NEEDS = {**dict.fromkeys(("GCN", "GIN", "GAT", "GATv2"), "torch_geometric"), "ode": "torchdiffeq"}


pytestmark = pytest.mark.usefixtures("settings_are_kept")


@pytest.mark.parametrize("kind", TINY)
def test_both_sides_compute_the_same(kind: str) -> None:
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    row = compare(TINY[kind](), "cpu", repeats=2, seconds=0)
    assert row.disagreement is not None and row.disagreement < 1e-5
    assert row.ratio is not None and row.ratio > 0 and row.subject in str(row) and row.against in str(row)


@pytest.mark.parametrize("kind", TINY)
def test_another_function_is_not_timed(kind: str) -> None:
    """One weight of the peer is another one."""
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    pair = TINY[kind]()

    def wrong(ours: Any) -> Any:
        net, call = pair.peer(ours)
        with torch.no_grad():
            next(p for p in net.parameters() if p.dim() > 1).view(-1)[0] += 3
        return net, call

    with pytest.raises(RuntimeError, match="something else"):
        compare(Pair(pair.subject, pair.against, pair.ours, pair.inputs, wrong), "cpu", repeats=2, seconds=0)


@pytest.mark.parametrize("kind", NEEDS)
def test_a_missing_peer_is_a_row(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NEEDS[kind], None)
    monkeypatch.setitem(sys.modules, f"{NEEDS[kind]}.nn", None)
    row = compare(TINY[kind](), "cpu", repeats=2, seconds=0)
    assert row.ratio is None and "not installed" in str(row)


def test_lists_of_edges_are_simple_graphs() -> None:
    edges = benchmark.listed(5, 20)
    assert (edges[0] != edges[1]).all() and len(edges.unique(dim=1).T) == 20
    assert edges.min() == 0 and edges.max() == 4


def test_tables_are_printed_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "PAIRS", (TINY["mlp"], TINY["RNN"]))
    monkeypatch.setattr(benchmark, "WIDTHS", (4,))
    monkeypatch.setattr(benchmark, "side_by_side", partial(side_by_side, networks=3, batch=4, steps=2))
    monkeypatch.setattr(benchmark, "compare", partial(compare, seconds=0))
    benchmark.main(["--repeats", "7", "--json", str(tmp_path / "rows.json")])
    written, printed = json.loads((tmp_path / "rows.json").read_text()), capsys.readouterr().out
    assert [len(written["references"]), len(written["seeds"])] == [2, 2] and written["rounds"] == 7
    for row in written["references"] + written["seeds"]:
        assert row["subject"] in printed and row["ratio"] > 0 and row["disagreement"] < 1e-6
    with pytest.raises(SystemExit):
        benchmark.main(["--repeats", "6"])


class Two(nn.Module):
    """A network of two inputs."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.first = MLP([3, 4, 2], dtype=torch.float64, generator=generator)
        self.second = MLP([2, 2], dtype=torch.float64, generator=generator)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.first(x) + self.second(z)


def networks(form: str, *seeds: int) -> list[nn.Module]:
    made = []
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        made.append(Two(g) if form == "tuples" else MLP([3, 4, 2], dtype=torch.float64, generator=g))
    return made


def loss(output: Tensor, target: Any) -> Tensor:
    if isinstance(target, tuple):
        return (target[1] * F.cross_entropy(output, target[0], reduction="none")).mean()
    return F.cross_entropy(output, target)


def data(form: str, networks: int, steps: int) -> list[Any]:
    """Batches of five for each step, with a leading axis over the networks."""
    g = torch.Generator().manual_seed(99)
    made: list[Any] = []
    for _ in range(steps):
        x, z = (torch.randn(networks, 5, n, dtype=torch.float64, generator=g) for n in (3, 2))
        y, weight = torch.randint(2, (networks, 5), generator=g), torch.rand(networks, 5, generator=g).double()
        made.append(((x, z), (y, weight)) if form == "tuples" else (x, y))
    return made


def one_of(tree: Any, i: int) -> Any:
    return tuple(one_of(part, i) for part in tree) if isinstance(tree, tuple) else tree[i]


def plain(net: nn.Module, batches: list[Any], i: int, optimizer: Any, schedule: Any) -> list[float]:
    """Train one network as PyTorch's manual has it."""
    rule = optimizer(net.parameters())
    rate, losses = schedule and schedule(rule), []
    for batch in batches:
        inputs, target = one_of(batch, i)
        value = loss(net(*inputs) if isinstance(inputs, tuple) else net(inputs), target)
        rule.zero_grad()
        value.backward()
        rule.step()
        if rate:
            rate.step()
        losses.append(value.item())
    return losses


def apart(ours: list[nn.Module], theirs: list[nn.Module]) -> float:
    pairs = [
        pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a.parameters(), b.parameters(), strict=True)
    ]
    return max(((a - b).detach().norm() / b.detach().norm()).item() for a, b in pairs)


OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.3, momentum=0.9, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.05),
}
SCHEDULES: dict[str, Any] = {
    "constant": None,
    "cosine": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=15),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("form", ["tensors", "tuples"])
def test_side_by_side_is_one_by_one(optimizer: str, schedule: str, form: str) -> None:
    rule, rate, batches = OPTIMIZERS[optimizer], SCHEDULES[schedule], data(form, networks=3, steps=15)
    ours, theirs = networks(form, 0, 1, 2), networks(form, 0, 1, 2)
    losses = train(ours, loss, batches.__getitem__, 15, rule, rate)
    truth = torch.tensor([plain(net, batches, i, rule, rate) for i, net in enumerate(theirs)]).T
    assert losses.shape == (15, 3) and not losses.requires_grad
    torch.testing.assert_close(losses, truth.double(), rtol=1e-6, atol=0)
    assert apart(ours, theirs) < 1e-6
    assert apart(ours, networks(form, 0, 1, 2)) > 1e-2  # they have moved
    assert apart([ours[0], ours[0]], [ours[1], ours[2]]) > 1e-2  # other seeds end elsewhere
    swapped = networks(form, 0, 1, 2)
    train(swapped, loss, lambda step: torch.utils._pytree.tree_map(lambda t: t.flip(0), batches[step]), 15, rule, rate)
    assert apart(swapped[::2], theirs[::2]) > 1e-2  # each has its own batches
    other = networks(form, 0, 1, 2)
    train(other, loss, batches.__getitem__, 15, rule, SCHEDULES["constant" if rate else "cosine"])
    assert apart(other, theirs) > 1e-3  # the schedule is followed


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", ["tensors", "tuples"])
def test_a_single_network_is_one_of_many(optimizer: str, form: str) -> None:
    rule, batches = OPTIMIZERS[optimizer], data(form, networks=2, steps=10)
    both, alone = networks(form, 0, 1), networks(form, 1)
    losses = train(both, loss, batches.__getitem__, 10, rule)
    single = train(alone, loss, lambda step: torch.utils._pytree.tree_map(lambda t: t[1:], batches[step]), 10, rule)
    torch.testing.assert_close(single[:, 0], losses[:, 1], rtol=1e-6, atol=0)
    assert apart(alone, both[1:]) < 1e-6 and apart(alone, both[:1]) > 1e-2


def test_side_by_side_rows() -> None:
    rows = side_by_side(4, "cpu", repeats=2, networks=3, batch=4, steps=3)
    assert [row.against for row in rows] == ["one by one, a plain loop", "one by one, train"]
    assert all(row.disagreement is not None and row.disagreement < 1e-12 for row in rows)


def test_networks_that_end_elsewhere_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        benchmark, "by_hand", lambda nets, inputs, *rest: benchmark.together(nets, inputs * 1.01, *rest)
    )
    with pytest.raises(RuntimeError, match="differ"):
        side_by_side(4, "cpu", repeats=2, networks=3, batch=4, steps=3)
