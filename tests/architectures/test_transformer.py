"""The transformers equal torch's own layers and stacks given the same weights; the decoders do not see the future.

Truth: `nn.TransformerEncoderLayer`, `nn.TransformerDecoderLayer` and stacks of them without dropout, composed with
`F.embedding` and `nn.Conv2d`; for causality and symmetry the definitions themselves.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lemmata.architectures import ArchitectureError
from lemmata.architectures.encoder_decoder import DecoderLayer, EncoderDecoder, greedy
from lemmata.architectures.gpt import GPT
from lemmata.architectures.positions import sinusoidal
from lemmata.architectures.sequence_encoder import SequenceEncoder
from lemmata.architectures.transformer import Encoder, EncoderLayer, FeedForward, stirred
from lemmata.architectures.vision_transformer import VisionTransformer, patches

TOLERANCE = 1e-10
DRAWS = 20


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def integers(seed, below, *shape):
    return torch.randint(below, shape, generator=generator(seed))


def relative(a, b):
    return ((a - b).norm() / b.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


def settings(seed):
    return {"dtype": torch.float64, "generator": generator(seed)}


def past(t):
    """Return the mask of torch: True where a query may not look."""
    return ~torch.ones(t, t, dtype=torch.bool).tril()


class Added(nn.Module):
    """The peer of an entry: a function of some parameters of ours, shared, and of torch's own layers."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part.detach().clone()) if isinstance(part, torch.Tensor) else part)

    def forward(self, *inputs):
        return self.call(self, *inputs)


# Each pair: ours, torch's, where each of our submodules is in torch's, and the inputs.
def encoder_layer(seed, norm, activation):
    ours = EncoderLayer(6, 3, 8, norm, activation, **settings(seed))
    own = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64}
    peer = nn.TransformerEncoderLayer(6, 3, 8, activation=activation, norm_first=norm == "pre", **own)
    return ours, peer, {"": ""}, (randn(seed + 100, 2, 5, 6),)


def decoder_layer(seed, norm, activation):
    ours = DecoderLayer(6, 3, 8, norm, activation, **settings(seed))
    own = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64}
    peer = nn.TransformerDecoderLayer(6, 3, 8, activation=activation, norm_first=norm == "pre", **own)
    causal = Added(lambda self, x, memory: self.layer(x, memory, tgt_mask=past(x.shape[1])), layer=peer)
    return ours, causal, {"": "layer."}, (randn(seed + 100, 2, 5, 6), randn(seed + 200, 2, 7, 6))


def stack(norm, layers=2):
    layer = nn.TransformerEncoderLayer(
        6, 3, 8, 0.0, "gelu", batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    last = nn.LayerNorm(6, dtype=torch.float64) if norm == "pre" else None
    return nn.TransformerEncoder(layer, layers, last, enable_nested_tensor=False)


def names(ours, theirs, norm, layers=2):
    table = {f"{ours}layers.{i}.": f"{theirs}layers.{i}." for i in range(layers)}
    return table | ({f"{ours}last.": f"{theirs}norm."} if norm == "pre" else {})


def encoder(seed, norm, positions):
    ours = Encoder(6, 3, 2, 8, norm, positions=positions, length=5, **settings(seed))

    def call(self, x):
        if positions == "learned":
            x = x + self.table
        return self.stack(x + sinusoidal(5, 6, x) if positions == "sinusoidal" else x)

    parts = {"table": ours.positions.table} if positions == "learned" else {}
    where = {"positions.table": "table"} if parts else {}
    return ours, Added(call, stack=stack(norm), **parts), where | names("", "stack.", norm), (randn(seed, 2, 5, 6),)


def gpt(seed, norm):
    ours = GPT(7, 6, 3, 2, 9, 8, norm, init="lecun", **settings(seed))

    def call(self, s):
        x = F.embedding(s, self.E) + self.P[: s.shape[1]]
        return F.linear(self.stack(x, past(s.shape[1])), self.E)

    peer = Added(call, stack=stack(norm), E=ours.embedding, P=ours.body.positions.table)
    where = {"embedding": "E", "body.positions.table": "P"} | names("body.", "stack.", norm)
    return ours, peer, where, (integers(seed, 7, 2, 5),)


def encoder_decoder(seed, positions):
    ours = EncoderDecoder(7, 5, 6, 3, 2, 8, positions=positions, length=9, **settings(seed))
    own = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64}
    layer = nn.TransformerDecoderLayer(6, 3, 8, activation="gelu", norm_first=True, **own)
    decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(6, dtype=torch.float64))

    def call(self, s, u):
        x, y = (math.sqrt(6) * F.embedding(tokens, table) for tokens, table in ((s, self.E), (u, self.D)))
        if positions == "learned":
            x, y = x + self.P[: s.shape[1]], y + self.Q[: u.shape[1]]
        else:
            x, y = x + sinusoidal(s.shape[1], 6, x), y + sinusoidal(u.shape[1], 6, y)
        return F.linear(self.decoder(y, self.encoder(x), tgt_mask=past(u.shape[1])), self.D)

    parts, where = {"E": ours.source, "D": ours.target}, {"source": "E", "target": "D"}
    if positions == "learned":
        parts |= {"P": ours.encoder.positions.table, "Q": ours.positions.table}
        where |= {"encoder.positions.table": "P", "positions.table": "Q"}
    where |= names("encoder.", "encoder.", "pre") | names("", "decoder.", "pre")
    return (
        ours,
        Added(call, encoder=stack("pre"), decoder=decoder, **parts),
        where,
        (integers(seed, 7, 2, 4), integers(seed + 100, 5, 2, 3)),
    )


def vision(seed, pool):
    ours = VisionTransformer(6, 2, 3, 6, 3, 2, 4, 8, pool, **settings(seed))

    def call(self, x):
        x = self.conv(x).flatten(2).mT  # (b n d)
        if pool == "class":
            x = torch.cat([self.token.expand(len(x), 1, -1), x], 1)
        y = self.stack(x + self.P)
        return self.readout(y[:, 0] if pool == "class" else y.mean(1))

    conv, readout = nn.Conv2d(3, 6, 2, stride=2, dtype=torch.float64), nn.Linear(6, 4, dtype=torch.float64)
    token = {"token": ours.class_token} if pool == "class" else {}
    peer = Added(call, stack=stack("pre"), conv=conv, readout=readout, P=ours.encoder.positions.table, **token)
    where = {"encoder.positions.table": "P", "embed.": "conv.", "readout.": "readout."}
    where |= ({"class_token": "token"} if token else {}) | names("encoder.", "stack.", "pre")
    return ours, peer, where, (randn(seed, 2, 3, 6, 6),)


def signal(seed):
    ours = SequenceEncoder(2, 5, 6, 3, 2, 4, 8, **settings(seed))
    embed, readout = nn.Linear(2, 6, dtype=torch.float64), nn.Linear(6, 4, dtype=torch.float64)
    peer = Added(
        lambda self, x: self.readout(self.stack(self.embed(x) + self.P).mean(1)),
        stack=stack("pre"),
        embed=embed,
        readout=readout,
        P=ours.encoder.positions.table,
    )
    where = {"encoder.positions.table": "P", "embed.": "embed.", "readout.": "readout."}
    return ours, peer, where | names("encoder.", "stack.", "pre"), (randn(seed, 2, 5, 2),)


STYLES = list(itertools.product(("pre", "post"), ("relu", "gelu")))
PAIRS = {
    **{f"EncoderLayer {n} {a}": (lambda seed, n=n, a=a: encoder_layer(seed, n, a)) for n, a in STYLES},
    **{f"DecoderLayer {n} {a}": (lambda seed, n=n, a=a: decoder_layer(seed, n, a)) for n, a in STYLES},
    "Encoder pre": lambda seed: encoder(seed, "pre", "none"),
    "Encoder post, sinusoidal": lambda seed: encoder(seed, "post", "sinusoidal"),
    "Encoder pre, learned": lambda seed: encoder(seed, "pre", "learned"),
    "GPT pre": lambda seed: gpt(seed, "pre"),
    "GPT post": lambda seed: gpt(seed, "post"),
    "EncoderDecoder": lambda seed: encoder_decoder(seed, "sinusoidal"),
    "EncoderDecoder learned": lambda seed: encoder_decoder(seed, "learned"),
    "VisionTransformer class": lambda seed: vision(seed, "class"),
    "VisionTransformer mean": lambda seed: vision(seed, "mean"),
    "SequenceEncoder": signal,
}
TORCH_NAMES = {
    "attention.W_o": "self_attn.out_proj",
    "cross.W_o": "multihead_attn.out_proj",
    "feed_forward.W_1": "linear1",
    "feed_forward.W_2": "linear2",
    "norm_": "norm",
    "gain": "weight",
}
STACKED = {"attention": "self_attn", "cross": "multihead_attn"}


def locate(name, where):
    """Return torch's name for one of our parameters, and which third of it ours is (None if all)."""
    for ours, theirs in sorted(where.items(), key=lambda item: -len(item[0])):
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    part = None
    for ours, theirs in STACKED.items():
        for i, matrix in enumerate(("W_q", "W_k", "W_v")):
            for kind in ("weight", "bias"):
                if name.endswith(f"{ours}.{matrix}.{kind}"):
                    name, part = name.replace(f"{ours}.{matrix}.", f"{theirs}.in_proj_"), i
    for ours, theirs in TORCH_NAMES.items():
        name = name.replace(ours, theirs)
    return name, part


def third(tensor, part):
    return tensor if part is None else tensor.chunk(3)[part]


def copy_by_name(ours, peer, where):
    theirs, seen = dict(peer.named_parameters()), set()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            their, part = locate(name, where)
            assert parameter.abs().min() > 0
            third(theirs[their], part).copy_(parameter.view(third(theirs[their], part).shape))
            seen.add(their)
    assert seen == set(theirs)


def parity_error(ours, peer, where, inputs):
    """Return the largest relative difference of the output and of every parameter's gradient.

    The gradient of W_k's bias is zero (it adds the same to all scores of a query): it is measured against W_k's.
    """
    probe = randn(5, *ours(*inputs).shape)
    for net in (ours, peer):
        net.zero_grad()
        (net(*inputs) * probe).sum().backward()
    theirs, errors = dict(peer.named_parameters()), [relative(ours(*inputs), peer(*inputs))]
    for name, parameter in ours.named_parameters():
        their, part = locate(name, where)
        grad = third(theirs[their].grad, part).view(parameter.shape)
        scale = ours.get_parameter(name.replace("W_k.bias", "W_k.weight")).grad.norm()
        errors.append(((parameter.grad - grad).norm() / scale).nan_to_num(nan=torch.inf).item())
    return max(errors)


@pytest.mark.parametrize("name", PAIRS)
def test_parity_and_a_perturbed_weight_breaks_it(name):
    for seed in range(DRAWS):
        ours, peer, where, inputs = PAIRS[name](seed)
        copy_by_name(stirred(ours, seed), peer, where)
        assert parity_error(ours, peer, where, inputs) <= TOLERANCE
        matrices = [p for p in ours.parameters() if p.dim() > 1]
        weight = matrices[seed % len(matrices)]
        seen = weight.grad.view(-1).nonzero().view(-1)  # an absent token's row does nothing
        with torch.no_grad():
            weight.view(-1)[seen[seed % len(seen)]] += 1e-6
        assert parity_error(ours, peer, where, inputs) > TOLERANCE


# Causality


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(
    ("positions", "attention"),
    [("learned", "softmax"), ("rotary", "softmax"), ("sinusoidal", "linear"), ("none", "linear")],
)
def test_gpt_is_causal_to_the_last_bit(norm, positions, attention):
    for dtype in (torch.float32, torch.float64):
        net = GPT(7, 8, 2, 2, 6, norm=norm, positions=positions, attention=attention, init="lecun", **settings(0))
        net = stirred(net, 1).to(dtype)
        open_ = Encoder(8, 2, 2, norm=norm, positions=positions, length=6, attention=attention, **settings(0)).to(dtype)
        open_.load_state_dict(net.body.state_dict())
        s = integers(0, 7, 3, 6)
        with torch.no_grad():
            logits = net(s)
            for t in range(6):
                changed = s.clone()
                changed[:, t] = (s[:, t] + 1) % 7
                other = net(changed)
                assert torch.equal(other[:, :t], logits[:, :t]) and not torch.equal(other[:, t], logits[:, t])
                assert t == 5 or not torch.equal(other[:, t + 1 :], logits[:, t + 1 :])
                # The control: the same weights without the mask see the future.
                seen, before = (open_(net.embedding[tokens])[:, :t] for tokens in (changed, s))
                assert t == 0 or not torch.equal(seen, before)


def test_decoder_is_causal_in_the_target_and_sees_all_of_the_source():
    net = stirred(EncoderDecoder(7, 5, 8, 2, 2, **settings(0)), 1)
    s, u = integers(0, 7, 2, 4), integers(1, 5, 2, 6)
    logits = net(s, u)
    for t in range(6):
        changed = u.clone()
        changed[:, t] = (u[:, t] + 1) % 5
        assert torch.equal(net(s, changed)[:, :t], logits[:, :t])
        assert not torch.equal(net(s, changed)[:, t], logits[:, t])
    other = s.clone()
    other[:, -1] = (s[:, -1] + 1) % 7
    assert (net(other, u) - logits).abs().amin((0, 2)).min() > 0


def test_padding_is_not_seen():
    for positions in ("sinusoidal", "rotary"):
        net = stirred(EncoderDecoder(7, 5, 8, 2, 2, positions=positions, **settings(0)), 1)
        s, u = integers(0, 7, 1, 3), integers(1, 5, 1, 4)
        padded, real = torch.cat([s, integers(2, 7, 1, 2)], 1), torch.tensor([[True, True, True, False, False]])
        torch.testing.assert_close(net(padded, u, real), net(s, u), rtol=0, atol=1e-13)
        assert relative(net(padded, u), net(s, u)) > 1e-3
        assert torch.equal(greedy(net, padded, 0, 5, real), greedy(net, s, 0, 5))


def test_greedy_reverses_after_training():
    """A network trained to reverse three digits does so when it reads its own output."""
    net = EncoderDecoder(4, 5, 16, 2, 1, **settings(0))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    answer = every.flip(1)
    shifted = torch.cat([torch.full((64, 1), 4), answer[:, :2]], 1)
    for _ in range(100):
        optimizer.zero_grad()
        logits = net(every, shifted)
        loss = (logits.logsumexp(-1) - logits.gather(-1, answer.unsqueeze(-1)).squeeze(-1)).mean()
        loss.backward()
        optimizer.step()
    assert (greedy(net, every, start=4, length=3) == answer).all(1).double().mean() > 0.95
    fresh = EncoderDecoder(4, 5, 16, 2, 1, **settings(0))
    assert (greedy(fresh, every, start=4, length=3) == answer).all(1).double().mean() < 0.1


# Permutations


@pytest.mark.parametrize("attention", ["softmax", "linear"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_without_positions_commutes_with_permutations(norm, attention):
    x = randn(0, 2, 4, 8)

    def worst(positions, causal=False):
        net = Encoder(8, 2, 2, None, norm, "gelu", positions, 4, attention, causal, **settings(0))
        net = stirred(net, 1)
        with torch.no_grad():
            return max(relative(net(x[:, g]), net(x)[:, g]) for g in itertools.permutations(range(4)))

    assert worst("none") <= 1e-13
    assert worst("none", causal=True) > 1e-3
    for positions in ("sinusoidal", "learned", *(("rotary",) if attention == "softmax" else ())):
        assert worst(positions) > 1e-3


def test_sequence_encoder_forgets_the_order_only_without_positions():
    x, order = randn(0, 2, 5, 2), [3, 0, 4, 1, 2]
    nets = [SequenceEncoder(2, 5, 8, 2, 1, 3, positions=kind, **settings(0)) for kind in ("none", "sinusoidal")]
    errors = [relative(net(x[:, order]), net(x)) for net in nets]
    assert errors[0] <= 1e-13 and errors[1] > 1e-3


def test_patches_are_cut_row_by_row():
    x = randn(0, 2, 3, 6, 6)
    cut = patches(x, 2)
    for i, (row, column) in enumerate(itertools.product(range(3), range(3))):
        square = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(cut[:, i], square.flatten(1))


# Initialisation, seeds and errors


def follows(sample, variance):
    """Return whether Σx²/variance lies in the central 1 − 1e-6 interval of χ²."""
    low, high = stats.chi2(sample.numel()).interval(1 - 1e-6)
    return low <= (sample.double().square().sum() / variance).item() <= high


def test_gpt2s_law():
    net = GPT(60, 32, 4, 3, 50, **settings(0))
    for name, parameter in net.named_parameters():
        if parameter.dim() == 2:
            added = name.endswith(("W_o.weight", "W_2.weight"))
            variance = 0.02**2 / (6 if added else 1)
            assert follows(parameter, variance) and not follows(parameter, 1.5 * variance), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float("gain" in name)))


def test_laws_of_the_others():
    net = EncoderDecoder(90, 60, 32, 4, 1, positions="learned", length=40, **settings(0))
    for name, parameter in net.named_parameters():
        if "table" in name:
            assert follows(parameter, 0.02**2)
        elif name in ("source", "target"):
            assert follows(parameter, 1 / 32) and not follows(parameter, 1.5 / 32)
        elif parameter.dim() == 2:
            assert follows(parameter, 2 / sum(parameter.shape)) and not follows(parameter, 3 / sum(parameter.shape))
    vit = VisionTransformer(16, 4, 3, 64, 4, 1, 10, **settings(0))
    assert follows(vit.class_token, 0.02**2) and follows(vit.embed.weight, 2 / (48 + 64))


FAMILIES = {
    "Encoder": lambda **k: Encoder(4, 2, 1, positions="learned", length=3, **k),
    "GPT": lambda **k: GPT(5, 4, 2, 1, 3, **k),
    "EncoderDecoder": lambda **k: EncoderDecoder(5, 6, 4, 2, 1, **k),
    "VisionTransformer": lambda **k: VisionTransformer(4, 2, 1, 4, 2, 1, 3, **k),
    "SequenceEncoder": lambda **k: SequenceEncoder(1, 5, 4, 2, 1, 3, **k),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_seed_decides_the_network(family):
    state, build = torch.get_rng_state(), FAMILIES[family]
    first, again, other = (build(**settings(seed)) for seed in (1, 1, 2))
    single = build(dtype=torch.float32, generator=generator(1))
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), single.parameters(), strict=True))
    assert all(torch.equal(a, b) and torch.equal(a.float(), d) for a, b, _, d in pairs)
    assert not torch.equal(*(torch.cat([p.view(-1) for p in net.parameters()]) for net in (first, other)))
    assert torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        assert {p.device.type for p in build().parameters()} == {"meta"}


def test_printed_networks_name_their_parts():
    assert "positions" in repr(Encoder(4, 2, 1)) and "norm=post" in repr(EncoderLayer(4, 2, norm="post"))
    assert "pool=mean" in repr(VisionTransformer(4, 2, 1, 4, 2, 1, 3, pool="mean"))
    assert "norm=pre" in repr(DecoderLayer(4, 2)) and "activation=gelu" in repr(DecoderLayer(4, 2))


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.long)


def tiny(**k):
    return EncoderDecoder(5, 5, 4, 2, 1, **k)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: EncoderLayer(4, 2, norm="per"), ["'per'", "did you mean 'pre'", "post"]),
        (lambda: EncoderLayer(4, 3), ["heads=3", "width=4"]),
        (lambda: EncoderLayer(4, 2, hidden=0), ["hidden", "at least 1"]),
        (lambda: EncoderLayer(4, 2, activation="rellu"), ["'rellu'", "relu"]),
        (lambda: FeedForward(0, 3, "relu", "he"), ["width", "at least 1"]),
        (lambda: Encoder(4, 2, 0), ["layers", "at least 1"]),
        (lambda: Encoder(4, 2, 1, positions="learnt"), ["'learnt'", "learned"]),
        (lambda: Encoder(4, 2, 1, positions="learned"), ["learned", "length="]),
        (lambda: Encoder(4, 4, 1, positions="rotary"), ["rotary", "heads=4", "even"]),
        (lambda: Encoder(4, 2, 1)(torch.zeros(3, 4)), ["(3, 4)", "(batch, length, 4)"]),
        (lambda: Encoder(4, 2, 1)(torch.zeros(2, 3, 5)), ["(2, 3, 5)", "width=4"]),
        (lambda: FAMILIES["Encoder"]()(torch.zeros(2, 4, 4)), ["4 positions", "length=3", "larger"]),
        (lambda: GPT(0, 4, 2, 1, 3), ["vocabulary", "at least 1"]),
        (lambda: GPT(5, 4, 2, 0, 3), ["layers", "at least 1"]),
        (lambda: GPT(5, 4, 2, 1), ["learned", "length="]),
        (lambda: GPT(5, 4, 2, 1, 3, init="orthogonal"), ["orthogonal", "Gaussian"]),
        (lambda: GPT(5, 4, 2, 1, positions="rotary", attention="linear"), ["rotary", "softmax"]),
        (lambda: FAMILIES["GPT"]()(zeros(2, 4)), ["4 positions", "length=3"]),
        (lambda: FAMILIES["GPT"]()(zeros(3)), ["tokens", "(3,)", "(batch, length)"]),
        (lambda: FAMILIES["GPT"]()(torch.zeros(2, 3)), ["float32", "integers"]),
        (lambda: EncoderDecoder(5, 0, 4, 2, 1), ["target_vocabulary", "at least 1"]),
        (lambda: tiny()(zeros(3), zeros(1, 3)), ["source tokens", "(3,)"]),
        (lambda: tiny()(zeros(1, 3), torch.zeros(1, 3)), ["target tokens", "float32"]),
        (lambda: tiny()(zeros(1, 3), zeros(2, 3)), ["(2, 3, 4)", "(1, 3, 4)", "batch"]),
        (lambda: tiny()(zeros(1, 3), zeros(1, 3), torch.ones(1, 2, dtype=torch.bool)), ["(1, 2)", "(1, 3)", "padding"]),
        (lambda: tiny(positions="learned", length=2)(zeros(1, 2), zeros(1, 3)), ["3 positions", "length=2"]),
        (lambda: greedy(tiny(), zeros(1, 3), 0, 0), ["length", "at least 1"]),
        (lambda: VisionTransformer(5, 2, 1, 4, 2, 1, 3), ["patch=2", "size=5", "divide"]),
        (lambda: VisionTransformer(4, 2, 1, 4, 2, 1, 3, pool="max"), ["'max'", "class", "mean"]),
        (lambda: VisionTransformer(4, 2, 0, 4, 2, 1, 3), ["channels", "at least 1"]),
        (lambda: VisionTransformer(4, 2, 1, 4, 2, 1, 0), ["classes", "at least 1"]),
        (lambda: FAMILIES["VisionTransformer"]()(torch.zeros(2, 1, 4, 6)), ["(2, 1, 4, 6)", "(batch, 1, 4, 4)"]),
        (lambda: SequenceEncoder(0, 5, 4, 2, 1, 3), ["n_in", "at least 1"]),
        (lambda: SequenceEncoder(1, 5, 4, 2, 1, 0), ["classes", "at least 1"]),
        (lambda: FAMILIES["SequenceEncoder"]()(torch.zeros(2, 5)), ["(2, 5)", "n_in=1", "unsqueeze"]),
        (lambda: FAMILIES["SequenceEncoder"]()(torch.zeros(2, 6, 1)), ["6 positions", "length=5"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
