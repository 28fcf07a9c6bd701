"""Reference implementations beside their libraries' own, and networks trained side by side beside one by one.

Run: ``python -m lemmata.studies.benchmarks.architectures [--device cpu|cuda] [--threads N] [--repeats N] [--json FILE]``.

First table: the time of a forward and a backward pass of each architecture, divided by that of the layer that users
know, with the same weights, inputs and threads. Second table: the time of training 16 networks one by one, divided by
that of training them side by side (`lemmata.studies.training.train`). One round times both in turn; ratios are taken
within a round. Rows state the median over rounds with the range of the middle half, and the ratio of the fastest
rounds. Before timing, both sides are compared: outputs and their gradients by the input, or, in 64 bits, losses and
trained parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from statistics import median, quantiles
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lemmata.architectures.attention import MultiHeadAttention
from lemmata.architectures.cnn import CNN
from lemmata.architectures.graph import GCNLayer
from lemmata.architectures.graph_attention import GATLayer
from lemmata.architectures.graph_attention_v2 import GATv2Layer
from lemmata.architectures.graph_isomorphism import GINLayer
from lemmata.architectures.gru import GRU
from lemmata.architectures.lstm import LSTM
from lemmata.architectures.mlp import MLP
from lemmata.architectures.neural_ode import NeuralODE
from lemmata.architectures.recurrent import RNN
from lemmata.architectures.resnet import BasicBlock
from lemmata.architectures.transformer import EncoderLayer
from lemmata.studies.benchmarks.timing import Contender, environment, interleaved, options, write
from lemmata.studies.training import train

#: A timing repeats a short pass for this many seconds.
SECONDS = 0.02
#: A reference implementation may cost this many times its library's; one with a step for each time, more.
ALLOWED, ALLOWED_RECURRENT = 1.5, 4.0
NETWORKS, BATCH, STEPS, WIDTHS = 16, 32, 20, (16, 32, 64, 128, 256)
ADAM = partial(torch.optim.Adam, lr=1e-3)

Forward = Callable[..., Tensor]
Net = TypeVar("Net", bound=nn.Module)
#: Parameters and a call.
Side = tuple[list[nn.Parameter], Forward]


@dataclass(frozen=True)
class Row:
    """Two sides of one comparison: their times, the ratio, and how far their numbers are apart."""

    subject: str
    against: str
    milliseconds: float | None = None
    their_milliseconds: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    fastest: float | None = None
    disagreement: float | None = None
    note: str = ""

    def __str__(self) -> str:
        name = f"{self.subject:<39} {self.against:<28}"
        if self.ratio is None:
            return f"{name} {self.note}"
        times = f"{self.milliseconds:8.3f} ms {self.their_milliseconds:8.3f} ms"
        spread = f"{self.ratio:6.2f} × [{self.low:.2f}, {self.high:.2f}]"
        return f"{name} {times} {spread:<24} {self.fastest:6.2f} × {self.disagreement:9.1e} {self.note}".rstrip()


HEAD = (
    f"{'':<39} {'beside':<28} {'ours':>11} {'theirs':>11} {'ratio':>8} {'middle half':<15} {'fastest':>8} {'apart':>9}"
)


@dataclass(frozen=True)
class Pair:
    """A reference implementation, its inputs, and how to build its peer with the same weights."""

    subject: str
    against: str
    ours: nn.Module
    inputs: tuple[Tensor, ...]
    peer: Callable[[Any], tuple[nn.Module, Forward]]
    allowed: float = ALLOWED


def filled(peer: Net, values: dict[str, Tensor] | None = None, like: nn.Module | None = None) -> Net:
    """Copy `values` into every parameter of the same name, or those of `like`, in their order."""
    own = dict(peer.named_parameters())
    if like is not None:
        values = dict(zip(own, like.parameters(), strict=True))
    assert values is not None and set(values) == set(own), set(own) ^ set(values or ())
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name].reshape(parameter.shape))
    return peer


def stirred(net: Net) -> Net:
    """Add noise to every parameter: no gain is one and no bias zero."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return net


def mlp(widths: tuple[int, ...], batch: int) -> Pair:
    def peer(ours: MLP) -> tuple[nn.Module, Forward]:
        layers: list[nn.Module] = []
        for n, m in pairwise(widths):
            layers += [nn.Linear(n, m), nn.ReLU()]
        net = filled(nn.Sequential(*layers[:-1]), like=ours)
        return net, net

    name = f"MLP {'-'.join(map(str, widths))}, b={batch}"
    return Pair(name, "nn.Sequential", MLP(widths, activation="relu"), (torch.randn(batch, widths[0]),), peer)


def cnn(channels: tuple[int, ...], side: int, batch: int, padding: Literal["zeros", "circular"]) -> Pair:
    def peer(ours: CNN) -> tuple[nn.Module, Forward]:
        layers: list[nn.Module] = []
        for n, m in pairwise(channels):
            layers += [nn.Conv2d(n, m, 3, padding=1, padding_mode=padding), nn.ReLU()]
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10)]
        net = filled(nn.Sequential(*layers, *pool), like=ours)
        return net, net

    name = f"CNN {'-'.join(map(str, channels))}, {side}×{side}, {padding}, b={batch}"
    ours = CNN(channels, 10, padding=padding, activation="relu")
    return Pair(name, "nn.Sequential", ours, (torch.randn(batch, channels[0], side, side),), peer)


class TorchBlock(nn.Module):
    """The basic block of torch.nn's layers, as torchvision writes it."""

    def __init__(self, channels: int, norm: Callable[[], nn.Module]):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm()
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


def block(channels: int, side: int, batch: int, norm: str) -> Pair:
    norms: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(channels),
        "group": lambda: nn.GroupNorm(4, channels),
    }

    def peer(ours: BasicBlock) -> tuple[nn.Module, Forward]:
        net = filled(TorchBlock(channels, norms[norm]), like=ours)
        return net, net

    ours = BasicBlock(channels, channels, norm=norm, groups=4)
    name = f"ResNet block {channels}, {side}×{side}, {norm}, b={batch}"
    return Pair(name, "torch.nn's layers", ours, (torch.randn(batch, channels, side, side),), peer)


def recurrent(kind: str, time: int, batch: int, width: int) -> Pair:
    ours: dict[str, Callable[[int, int], nn.Module]] = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}

    def peer(net: Any) -> tuple[nn.Module, Forward]:
        theirs = getattr(nn, kind)(width, width, batch_first=True)
        second = torch.zeros_like(net.b) if kind != "GRU" else torch.cat([0 * net.b[: 2 * width], net.b_hn])
        weights = {"weight_ih_l0": net.W, "weight_hh_l0": net.U, "bias_ih_l0": net.b, "bias_hh_l0": second}
        filled(theirs, weights)
        return theirs, lambda x: theirs(x)[0]

    name = f"{kind} {width}, T={time}, b={batch}"
    inputs = (torch.randn(batch, time, width),)
    return Pair(name, f"nn.{kind}", ours[kind](width, width), inputs, peer, ALLOWED_RECURRENT)


def attention_weights(net: MultiHeadAttention) -> dict[str, Tensor]:
    """The weights under the names of nn.MultiheadAttention."""
    maps = net.W_q, net.W_k, net.W_v
    return {
        "in_proj_weight": torch.cat([one.weight for one in maps]),
        "in_proj_bias": torch.cat([one.bias for one in maps]),
        "out_proj.weight": net.W_o.weight,
        "out_proj.bias": net.W_o.bias,
    }


class SelfAttention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, attention: Any, **settings: Any):
        super().__init__()
        self.attention, self.settings = attention, settings

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x, **self.settings)


def attention(width: int, heads: int, time: int, batch: int) -> Pair:
    def peer(ours: SelfAttention) -> tuple[nn.Module, Forward]:
        theirs = nn.MultiheadAttention(width, heads, batch_first=True)
        net = SelfAttention(filled(theirs, attention_weights(ours.attention)), need_weights=False)
        return net, lambda x: net(x)[0]

    name = f"attention {width}, {heads} heads, T={time}, b={batch}"
    ours = SelfAttention(MultiHeadAttention(width, heads))
    return Pair(name, "nn.MultiheadAttention", ours, (torch.randn(batch, time, width),), peer)


def encoder(norm: str, width: int, heads: int, time: int, batch: int) -> Pair:
    def peer(ours: EncoderLayer) -> tuple[nn.Module, Forward]:
        theirs = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm == "pre"
        )
        values = {f"self_attn.{name}": value for name, value in attention_weights(ours.attention).items()}
        for i, linear, scale in ((1, ours.feed_forward.W_1, ours.norm_1), (2, ours.feed_forward.W_2, ours.norm_2)):
            values |= {f"linear{i}.weight": linear.weight, f"linear{i}.bias": linear.bias}
            values |= {f"norm{i}.weight": scale.gain, f"norm{i}.bias": scale.bias}
        net = filled(theirs, values)
        return net, net

    name = f"encoder layer {width}, {norm}, T={time}, b={batch}"
    inputs = (torch.randn(batch, time, width),)
    return Pair(name, "nn.TransformerEncoderLayer", EncoderLayer(width, heads, norm=norm), inputs, peer)


class Shifted(nn.Module):
    """GATv2Conv's `bias` is one for its linear maps too, which the paper has not: leave them out, add the last again."""

    def __init__(self, conv: nn.Module, size: int):
        super().__init__()
        self.conv, self.bias = conv, nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.conv(x, edges) + self.bias


def graph(kind: str, nodes: int, edges: int, width: int, heads: int = 4) -> Pair:
    ours: dict[str, Callable[[], nn.Module]] = {
        "GCN": lambda: GCNLayer(width, width),
        "GIN": lambda: GINLayer([width, width, width]),
        "GAT": lambda: GATLayer(width, width, heads),
        "GATv2": lambda: GATv2Layer(width, width, heads),
    }

    def peer(net: Any) -> tuple[nn.Module, Forward]:
        import torch_geometric.nn as pyg

        if kind == "GCN":
            theirs = filled(pyg.GCNConv(width, width), {"lin.weight": net.weight, "bias": net.bias})
        elif kind == "GIN":
            inner = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
            theirs = pyg.GINConv(inner, train_eps=True)  # which draws the weights of `inner` anew
            filled(inner, like=net.mlp)
            theirs.eps.data.copy_(net.epsilon.data)
        elif kind == "GAT":
            names = {"lin.weight": net.weight, "att_src": net.a_sender, "att_dst": net.a_receiver, "bias": net.bias}
            theirs = filled(pyg.GATConv(width, width // heads, heads), names)
        else:
            conv = pyg.GATv2Conv(width, width // heads, heads, bias=False)
            names = {"conv.lin_l.weight": net.W_sender, "conv.lin_r.weight": net.W_receiver, "conv.att": net.a}
            theirs = filled(Shifted(conv, width), {**names, "bias": net.bias})
        return theirs, theirs

    name = f"{kind} layer {width}, {nodes} nodes, {edges} edges"
    return Pair(name, "torch_geometric", ours[kind](), (torch.randn(nodes, width), listed(nodes, edges)), peer)


def listed(nodes: int, edges: int) -> Tensor:
    """A list of `edges` different directed edges without loops."""
    pairs = torch.randperm(nodes * (nodes - 1))[:edges]
    source, target = pairs // (nodes - 1), pairs % (nodes - 1)
    return torch.stack([source, target + (target >= source)])


def ode(width: int, hidden: int, steps: int, batch: int) -> Pair:
    def peer(ours: NeuralODE) -> tuple[nn.Module, Forward]:
        from torchdiffeq import odeint

        field = deepcopy(ours.field)
        times = torch.linspace(0, 1, steps + 1)
        return field, lambda x: odeint(field, x, times.to(x), method="rk4")[-1]

    name = f"neural ODE {width}-{hidden}, {steps} steps, b={batch}"
    ours = NeuralODE(width, hidden, solver="three-eighths", steps=steps)
    return Pair(name, "torchdiffeq, rk4", ours, (torch.randn(batch, width),), peer)


#: The comparisons of the first table.
PAIRS: tuple[Callable[[], Pair], ...] = (
    partial(mlp, (784, 512, 512, 10), 256),
    partial(mlp, (32, 64, 64, 10), 32),
    partial(cnn, (3, 32, 64, 64), 32, 64, "zeros"),
    partial(cnn, (3, 32, 64, 64), 32, 64, "circular"),
    partial(block, 64, 16, 32, "batch"),
    partial(block, 64, 16, 32, "group"),
    *(partial(recurrent, kind, 64, 32, 64) for kind in ("RNN", "LSTM", "GRU")),
    partial(attention, 128, 4, 64, 32),
    partial(encoder, "pre", 128, 4, 64, 32),
    partial(encoder, "post", 128, 4, 64, 32),
    *(partial(graph, kind, 1000, 8000, 64) for kind in ("GCN", "GIN", "GAT", "GATv2")),
    partial(ode, 16, 64, 10, 128),
)


def gradient(side: Side, inputs: tuple[Tensor, ...], probe: Tensor) -> Contender:
    """A forward and a backward pass."""
    parameters, call = side
    return lambda: torch.autograd.grad(call(*inputs), parameters, probe)


def apart(ours: Side, peer: Side, inputs: tuple[Tensor, ...], probe: Tensor) -> float:
    """The larger relative distance of outputs and of gradients by the first input."""
    found = []
    for _, call in (ours, peer):
        x = inputs[0].clone().requires_grad_()
        y = call(x, *inputs[1:])
        found.append((y.detach(), torch.autograd.grad(y, x, probe)[0]))
    return max(distance(a, b) for a, b in zip(*found, strict=True))


def distance(a: Tensor, b: Tensor) -> float:
    """Relative distance."""
    return float((a - b).detach().norm() / b.detach().norm())


def measured(ours: list[float], theirs: list[float], inverse: bool = False) -> dict[str, float]:
    """The times of both sides in each round, and the ratio of ours to theirs or its inverse."""
    above, below = (theirs, ours) if inverse else (ours, theirs)
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "milliseconds": 1e3 * median(ours),
        "their_milliseconds": 1e3 * median(theirs),
        "ratio": median(ratios),
        "low": low,
        "high": high,
        "fastest": min(above) / min(below),
    }


def compare(pair: Pair, device: str, repeats: int, seconds: float = SECONDS) -> Row:
    """The row of one pair: our time divided by the peer's."""
    net = stirred(pair.ours)
    try:
        theirs, call = pair.peer(net)
    except ImportError as error:
        return Row(pair.subject, pair.against, note=f"not installed: {error}")
    inputs = tuple(one.to(device) for one in pair.inputs)
    ours: Side = list(net.to(device).parameters()), net
    peer: Side = list(theirs.to(device).parameters()), call
    probe = torch.randn_like(net(*inputs))
    gap = apart(ours, peer, inputs, probe)
    if not gap < 1e-2:  # a GPU's convolutions may round to ten bits
        raise RuntimeError(f"{pair.subject}: {pair.against} computes something else, relative distance {gap:.1e}")
    contenders = {"ours": gradient(ours, inputs, probe), "theirs": gradient(peer, inputs, probe)}
    rounds = interleaved(contenders, device, repeats, seconds)
    found = measured([times["ours"] for times in rounds], [times["theirs"] for times in rounds])
    note = "" if found["ratio"] <= pair.allowed else f"above {pair.allowed}"
    return Row(pair.subject, pair.against, **found, disagreement=gap, note=note)


def by_hand(networks: list[nn.Module], inputs: Tensor, target: Tensor, rule: Callable[..., Any]) -> Tensor:
    """Train networks one by one with a plain loop of PyTorch; (steps, networks, batch, …) to the losses."""
    losses = []
    for i, net in enumerate(networks):
        optimizer = rule(net.parameters())
        for step in range(len(inputs)):
            loss = F.cross_entropy(net(inputs[step, i]), target[step, i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).view(len(networks), len(inputs)).T


def together(networks: list[nn.Module], inputs: Tensor, target: Tensor, rule: Callable[..., Any]) -> Tensor:
    """Train them side by side."""
    return train(networks, F.cross_entropy, lambda step: (inputs[step], target[step]), len(inputs), rule)


def singly(networks: list[nn.Module], inputs: Tensor, target: Tensor, rule: Callable[..., Any]) -> Tensor:
    """Train them one by one with the same function."""
    return torch.cat(
        [
            together([net], inputs[:, i : i + 1], target[:, i : i + 1], rule)  # of a single network no vmap is made
            for i, net in enumerate(networks)
        ],
        dim=1,
    )


def side_by_side(
    width: int,
    device: str,
    repeats: int,
    networks: int = NETWORKS,
    batch: int = BATCH,
    steps: int = STEPS,
    rule: Callable[..., torch.optim.Optimizer] = ADAM,
) -> list[Row]:
    """The time of one by one divided by that of side by side, of a step of all networks of one width."""

    def fresh(dtype: torch.dtype = torch.float32) -> list[nn.Module]:
        settings: dict[str, Any] = {"activation": "relu", "dtype": dtype, "device": device}
        return [
            MLP([32, width, width, 10], generator=torch.Generator().manual_seed(seed), **settings)
            for seed in range(networks)
        ]

    inputs = torch.randn(steps, networks, batch, 32).to(device)
    target = torch.randint(10, (steps, networks, batch)).to(device)
    wide = inputs.double(), target, rule
    ours = fresh(torch.float64)
    losses = together(ours, *wide)
    loops: dict[str, Callable[..., Tensor]] = {"one by one, a plain loop": by_hand, "one by one, train": singly}
    gaps = {}
    for name, loop in loops.items():
        theirs = fresh(torch.float64)
        gap = distance(loop(theirs, *wide), losses)
        for a, b in zip(theirs, ours, strict=True):
            gap = max(gap, *map(distance, a.parameters(), b.parameters()))
        if not gap <= 1e-6:
            raise RuntimeError(f"width {width}: networks trained side by side and {name} differ by {gap:.1e}")
        gaps[name] = gap
    contenders = {name: partial(how, fresh(), inputs, target, rule) for name, how in {"": together, **loops}.items()}
    rounds = interleaved(contenders, device, repeats)
    rows = []
    for name, gap in gaps.items():
        found = measured([r[""] / steps for r in rounds], [r[name] / steps for r in rounds], inverse=True)
        note = "" if found["ratio"] >= 1 else "one by one is faster"
        subject = f"{networks} MLPs 32-{width}-{width}-10, b={batch}"
        rows.append(Row(subject, name, **found, disagreement=gap, note=note))
    return rows


def references(device: str, repeats: int) -> Iterator[Row]:
    """The first table."""
    for make in PAIRS:
        yield compare(make(), device, repeats)


def seeds(device: str, repeats: int) -> Iterator[Row]:
    """The second table."""
    for width in WIDTHS:
        yield from side_by_side(width, device, repeats)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    given = options(__doc__.splitlines()[0], arguments)
    about = environment(given.device, given.repeats)
    print("  ".join(f"{key} {value}" for key, value in about.items()))
    tables: dict[str, list[dict[str, Any]]] = {"references": [], "seeds": []}
    titles = {
        "references": "forward and backward: our time / theirs",
        "seeds": f"one step of {NETWORKS} networks: their time, one by one / ours, side by side",
    }
    for name, table in (("references", references), ("seeds", seeds)):
        print(f"\n{titles[name]}\n{HEAD}")
        for row in table(given.device, given.repeats):
            print(row, flush=True)
            tables[name].append(asdict(row))
    write(given.json, about, **tables)


if __name__ == "__main__":
    main()
