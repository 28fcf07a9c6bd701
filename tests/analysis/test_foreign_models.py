"""Stock models of other libraries, as they come: products, eigenpairs and trace against differences and closed forms."""

from __future__ import annotations

import warnings
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.operators.layout import Selection

FLOAT = torch.float64
MODES = pytest.mark.parametrize("cap", [2**30, 0], ids=["retained", "fresh"])


@dataclass
class Case:
    """A model with its data; ``logits`` picks from its output what ``loss`` reads."""

    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    inputs: Any
    target: Any
    logits: Callable[[Any], Tensor] = lambda output: output
    params: Selection = "*"

    def __post_init__(self) -> None:
        self.model = self.model.double()

    def build(self, kind: Any, **options: Any) -> Any:
        return kind(self.model, self.loss, [(self.inputs, self.target)], self.params, **options)

    def run(self) -> Any:
        """The output at the model's own parameters."""
        if isinstance(self.inputs, dict | UserDict):
            return self.model(**self.inputs)
        return self.model(*self.inputs) if isinstance(self.inputs, tuple) else self.model(self.inputs)

    def at(self, operator: la.Operator, shift: Tensor, measure: Callable[[], Any]) -> Any:
        """A measurement with the parameters moved, which are put back."""
        own, moves = dict(self.model.named_parameters()), operator.split(shift)
        before = {name: own[name].detach().clone() for name in moves}
        with torch.no_grad():
            for name, move in moves.items():
                own[name].add_(move)
        found = measure()
        with torch.no_grad():
            for name in moves:
                own[name].copy_(before[name])
        return found

    def gradient(self, operator: la.Operator) -> Tensor:
        own = [dict(self.model.named_parameters())[name] for name in operator.layout.names]
        parts = torch.autograd.grad(self.loss(self.run(), self.target), own, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(parts, own, strict=True)]
        )

    def product(self, H: la.Operator, v: Tensor, step: float = 1e-4) -> Tensor:
        """Hv by central differences of the gradient, extrapolated once."""
        first, second = (
            (self.at(H, h * v, lambda: self.gradient(H)) - self.at(H, -h * v, lambda: self.gradient(H))) / (2 * h)
            for h in (step, 2 * step)
        )
        return (4 * first - second) / 3

    @torch.no_grad()
    def form(self, G: la.Operator, v: Tensor, step: float = 1e-4) -> float:
        """vᵀGv = d²/dt² loss(f + t J v), J v by central differences of the output and the rest by those of the loss."""
        centre = self.logits(self.run())
        first, second = (
            (self.at(G, h * v, lambda: self.logits(self.run())) - self.at(G, -h * v, lambda: self.logits(self.run())))
            / (2 * h)
            for h in (step, 2 * step)
        )
        slope = (4 * first - second) / 3
        t = 5e-3 / float(slope.abs().max())
        values = [float(self.loss(self._output(centre + k * t * slope), self.target)) for k in (-2, -1, 0, 1, 2)]
        return sum(w * value for w, value in zip((-1, 16, -30, 16, -1), values, strict=True)) / (12 * t**2)

    def _output(self, logits: Tensor) -> Any:
        output = self.run()
        if isinstance(output, Tensor):
            return logits
        output["logits"] = logits
        return output


def seeded() -> None:
    torch.manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=FLOAT)


LABELS = torch.tensor([0, 1, 2, 1])


def encoder() -> Case:
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).double().eval()  # eval: the fast path has no derivative at all
    return Case(model, nn.MSELoss(), randn(3, 5, 4), randn(3, 5, 4))


def masked_encoder() -> Case:
    """A causal mask and padding, by keyword."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True), 1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    inputs = {"src": randn(2, 5, 4), "mask": torch.ones(5, 5).triu(1).bool(), "src_key_padding_mask": padding}
    target = torch.randint(0, 4, (2, 5)).masked_fill(padding, -100)
    return Case(model, lambda f, y: F.cross_entropy(f.flatten(0, 1), y.flatten()), inputs, target)


class Recurrent(nn.Module):
    """A stock recurrent layer, read at its last step."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.body, self.last = kind(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x)[0][:, -1])


def recurrent(kind: Any) -> Callable[[], Case]:
    return lambda: Case(Recurrent(kind), nn.CrossEntropyLoss(), randn(4, 6, 3), LABELS)


class Graph(nn.Module):
    """Two layers of a stock graph convolution."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.second = kind(3, 4), kind(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).tanh(), edge_index)


def graph(name: str) -> Callable[[], Case]:
    def make() -> Case:
        kinds = pytest.importorskip("torch_geometric.nn")
        edges = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
        inputs = (randn(4, 3), edges)
        return Case(Graph(getattr(kinds, name)), nn.CrossEntropyLoss(), inputs, LABELS)

    return make


def torchvision_model(name: str, params: Selection) -> Callable[[], Case]:
    def make() -> Case:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                from torchvision import models
            except ImportError:
                pytest.skip("torchvision is not installed")
            except RuntimeError as missing:  # its wheel built for another torch has no compiled operators
                assert "torchvision::" in str(missing)
                for operator in ("nms", "qnms"):
                    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float t) -> Tensor")
                from torchvision import models
        model, images = getattr(models, name)(num_classes=3).double(), randn(4, 3, 32, 32)
        with torch.no_grad():
            for module in model.modules():
                module.train(not isinstance(module, nn.Dropout))
            for _ in range(20):  # statistics that fit, else signals fade and every ReLU stands on its kink
                model(images)
            if name == "mobilenet_v3_small":
                model.classifier[-1].weight.mul_(1000)  # else its logits are all but constant
        return Case(model.eval(), nn.CrossEntropyLoss(), images, LABELS, params=params)

    return make


class Output(UserDict):
    """What a model of a hub returns: a mapping of its own type, entries also as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name == "data":
            raise AttributeError(name)
        return self.data[name]


class Hub(nn.Module):
    """Called by keywords; returns a mapping with a loss of its own, as Hugging Face's models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body = nn.Embedding(7, 4), nn.Linear(4, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Output:
        states = self.body(self.embedding(input_ids)).tanh() * attention_mask[..., None]
        logits = states @ self.embedding.weight.T
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return Output(loss=loss, logits=logits, length=torch.tensor(input_ids.shape[1]))


TOKENS = torch.tensor([[1, 2, 3, 4, 0], [3, 6, 2, 0, 0]])


def tokens_loss(output: Any, target: Tensor) -> Tensor:
    return F.cross_entropy(output["logits"].flatten(0, 1), target.flatten(), ignore_index=0)


def hub() -> Case:
    inputs = UserDict(input_ids=TOKENS, attention_mask=(TOKENS > 0).double())
    return Case(Hub(), tokens_loss, inputs, TOKENS, lambda output: output["logits"])


def gpt2() -> Case:
    hugging = pytest.importorskip("transformers")
    config = hugging.GPT2Config(
        vocab_size=7, n_positions=6, n_embd=4, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    inputs = {"input_ids": TOKENS, "attention_mask": (TOKENS > 0).long()}
    return Case(hugging.GPT2LMHeadModel(config).eval(), tokens_loss, inputs, TOKENS, lambda output: output["logits"])


def timm_model() -> Case:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3).double().eval()
    return Case(model, nn.CrossEntropyLoss(), randn(4, 3, 32, 32), LABELS, params="blocks.11.norm*")


CASES: dict[str, Callable[[], Case]] = {
    "nn.TransformerEncoder": encoder,
    "nn.TransformerEncoder with masks": masked_encoder,
    "nn.LSTM": recurrent(nn.LSTM),
    "nn.GRU": recurrent(nn.GRU),
    "nn.RNN": recurrent(nn.RNN),
    "torch_geometric GCNConv": graph("GCNConv"),
    "torch_geometric GATConv": graph("GATConv"),
    "torchvision resnet18": torchvision_model("resnet18", ["layer4.1.bn2.*", "fc.*"]),
    "torchvision mobilenet_v3_small": torchvision_model("mobilenet_v3_small", ["features.9.block.2.fc2.*"]),
    "mapping of its own": hub,
    "transformers GPT-2": gpt2,
    "timm ViT": timm_model,
}


@MODES
@pytest.mark.parametrize("name", CASES)
def test_products_against_differences(name: str, cap: int) -> None:
    seeded()
    case = CASES[name]()
    H, G = (case.build(kind, memory_cap=cap) for kind in (la.Hessian, la.GGN))
    v = randn(H.shape[0])
    v /= v.norm()
    truth, form = case.product(H, v), case.form(G, v)
    assert float((H @ v - truth).norm()) <= 1e-6 * float(truth.norm())
    assert float(v @ (G @ v)) == pytest.approx(form, rel=1e-6, abs=0)
    assert float((1.0001 * (H @ v) - truth).norm()) > 1e-6 * float(truth.norm())
    assert 1.0001 * float(v @ (G @ v)) != pytest.approx(form, rel=1e-6, abs=0)


@pytest.mark.parametrize("name", [name for name in CASES if "torchvision" not in name and "timm" not in name])
def test_eigenpairs_and_trace_against_the_dense_matrix(name: str) -> None:
    seeded()
    case = CASES[name]()
    for kind in (la.Hessian, la.GGN):
        A = case.build(kind)
        dense = A.dense().numpy()
        values = np.linalg.eigvalsh((dense + dense.T) / 2)
        assert np.abs(dense - dense.T).max() <= 1e-10 * np.abs(dense).max()
        pairs = la.eigenpairs(A, 2, tol=1e-6)
        assert pairs.converged and pairs.values.numpy() == pytest.approx(values[:-3:-1], rel=1e-6)
        found = la.trace(A, 0.05, max_matvecs=500)
        low, high = found.interval(0.999)
        assert low - 1e-10 <= dense.trace() <= high + 1e-10
    u = case.product(A := case.build(la.Hessian), (pairs := la.eigenpairs(A, tol=1e-4)).vectors[:, 0])
    assert float((u - pairs.values[0] * pairs.vectors[:, 0]).norm()) <= 1.01e-4 * float(
        pairs.values[0]
    )  # not autograd's


def test_the_head_of_a_stock_network_is_softmax_regression_on_its_features() -> None:
    """H = Σ (diag p − ppᵀ) ⊗ (φ, 1)(φ, 1)ᵀ / N on the last layer, the features φ taken by a hook."""
    seeded()
    case, kept = CASES["torchvision resnet18"](), []
    case.model.fc.register_forward_pre_hook(lambda module, args: kept.append(args[0].detach()))
    case.params = "fc.*"
    H, p = case.build(la.Hessian), case.run().detach().softmax(1)
    rows = torch.cat([kept[-1], torch.ones(4, 1, dtype=FLOAT)], 1)
    blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    gram = torch.einsum("nab,ni,nj->aibj", blocks, rows, rows).reshape(3 * 513, 3 * 513) / 4
    order = [c * 513 + i for c in range(3) for i in range(512)] + [c * 513 + 512 for c in range(3)]
    truth = gram[order][:, order]
    v = randn(len(truth))
    assert float((H @ v - truth @ v).norm()) <= 1e-10 * float((truth @ v).norm())
    assert la.trace(H).value == pytest.approx(float(truth.trace()), rel=1e-9)
    values = np.linalg.eigvalsh(truth.numpy())[::-1]
    assert la.eigenpairs(H, 3, tol=1e-8).values.numpy() == pytest.approx(values[:3], rel=1e-8)
    assert la.eigenpairs(H, 3, tol=1e-8).values.numpy() != pytest.approx(values[:3] * 4, rel=1e-2)


def test_a_model_that_computes_its_own_loss_in_single_precision() -> None:
    """Hugging Face's models take the loss of their labels in float32, so products round at 1e-7, not at 1e-16."""

    class Own(Hub):
        def forward(self, **inputs: Any) -> Output:
            output = super().forward(**{**inputs, "labels": None})
            logits, labels = output["logits"].float(), inputs["labels"]
            return Output(loss=F.cross_entropy(logits.flatten(0, 1), labels.flatten()), logits=logits)

    seeded()
    inputs = {"input_ids": TOKENS, "attention_mask": (TOKENS > 0).double(), "labels": TOKENS}
    model = Own().double()
    H, fresh = (la.Hessian(model, lambda o, t: o.loss, (inputs, None), memory_cap=cap) for cap in (None, 0))
    same = Hub().double()
    same.load_state_dict(model.state_dict())
    exact = la.Hessian(same, lambda o, t: o.loss, (inputs, None))
    v = randn(H.shape[0])
    for operator in (H, fresh):
        assert 1e-9 < float((operator @ v - exact @ v).norm() / (exact @ v).norm()) < 1e-5


def test_what_was_rerouted_is_named() -> None:
    seeded()
    for name, words in {
        "nn.TransformerEncoder": "attention: MATH kernel",
        "nn.LSTM": "mkldnn and cuDNN off",
        "torchvision mobilenet_v3_small": "hardsigmoid: written out",
    }.items():
        assert words in repr(CASES[name]().build(la.Hessian))
