"""The networks, losses and batches that the curvature benchmark measures on, and what is true of them.

The truths are computed in double precision by plain PyTorch, from code that no contender shares.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from lemmata.architectures import GPT, LSTM, MLP, ResNet
from lemmata.studies.architectures.text import LETTERS, letters
from lemmata.studies.data import digits, english

_STEPS = 50  # of Adam, so that the matrices are those of networks that have begun to learn
_CHUNK = 16  # examples, or unit vectors, at a time in a truth
_DENSE = 3500  # parameters up to which a truth takes a product with every unit vector
_SPAN, _PROBES = 60, 600  # leading eigenvectors, and random signs, of a truth that is sampled


@dataclass(frozen=True)
class Problem:
    """A network, its loss and one batch. ``straight``: piecewise affine in each parameter, so that tr H = tr G."""

    name: str
    model: nn.Module
    loss: nn.Module
    batch: tuple[Tensor, Tensor]
    straight: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters in order."""
        return list(self.model.parameters())

    @property
    def size(self) -> int:
        """P."""
        return sum(parameter.numel() for parameter in self.parameters)

    def gradient(self) -> tuple[Tensor, ...]:
        """A plain gradient: the unit of cost."""
        return torch.autograd.grad(self.loss(self.model(self.batch[0]), self.batch[1]), self.parameters)

    @cached_property
    def double(self) -> Problem:
        """The same in double precision."""
        x, y = self.batch
        x = x.double() if x.is_floating_point() else x
        return Problem(self.name, copy.deepcopy(self.model).double(), self.loss, (x, y), self.straight)

    @cached_property
    def slopes(self) -> list[Tensor]:
        """The gradient with its graph."""
        x, y = self.batch
        return list(torch.autograd.grad(self.loss(self.model(x), y), self.parameters, create_graph=True))

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector (…, P) in pieces shaped like the parameters."""
        sizes = [parameter.numel() for parameter in self.parameters]
        parts = zip(vector.split(sizes, -1), self.parameters, strict=True)
        return [part.reshape(*vector.shape[:-1], *parameter.shape) for part, parameter in parts]

    def hessian_product(self, vector: Tensor) -> Tensor:
        """Hv by two backward passes."""
        found = torch.autograd.grad(self.slopes, self.parameters, self.split(vector), retain_graph=True)
        return flat(found)

    def ggn_product(self, vector: Tensor) -> Tensor:
        """Jᵀ ∇²ℓ Jv by one forward and one backward derivative of the output."""
        names = [name for name, _ in self.model.named_parameters()]
        theta = dict(zip(names, (parameter.detach() for parameter in self.parameters), strict=True))

        def outputs(chosen: dict[str, Tensor]) -> Tensor:
            return functional_call(self.model, chosen, (self.batch[0],))

        given = dict(zip(names, self.split(vector), strict=True))
        pair: Any = jvp(outputs, (theta,), (given,))
        output, pushed = pair[0], pair[1]
        leaf = output.detach().requires_grad_()
        slope = torch.autograd.grad(self.loss(leaf, self.batch[1]), leaf, create_graph=True)[0]
        curved = torch.autograd.grad(slope, leaf, pushed)[0]
        pulled = vjp(outputs, theta)[1](curved)[0]
        return flat([pulled[name] for name in names])


def flat(parts: Any) -> Tensor:
    """Tensors as one vector."""
    return torch.cat([part.detach().reshape(-1) for part in parts])


def true_eigenvalues(problem: Problem, k: int) -> Tensor:
    """The k eigenvalues of largest magnitude, in descending magnitude, by ARPACK to rounding."""
    double = problem.double
    options = {"which": "LM", "tol": 1e-8, "v0": np.ones(double.size), "return_eigenvectors": False}
    return by_magnitude(torch.from_numpy(eigsh(_scipy(double), k=k, ncv=min(4 * k, double.size), **options)))


def _scipy(double: Problem) -> LinearOperator:
    where = double.parameters[0].device

    def product(vector: np.ndarray) -> np.ndarray:
        return double.hessian_product(torch.from_numpy(vector.reshape(-1)).to(where)).cpu().numpy()

    return LinearOperator((double.size, double.size), matvec=product, dtype=np.float64)


def by_magnitude(values: Tensor) -> Tensor:
    """In descending magnitude."""
    return values[values.abs().argsort(descending=True)]


def true_trace(problem: Problem) -> tuple[float, float]:
    """The trace and its standard error.

    It is exact from the Jacobians of single examples where those give the trace, and from unit vectors where they are
    few. Else the part in the span of the leading eigenvectors is exact, and the rest is sampled.
    """
    if problem.straight:
        return _from_jacobians(problem.double), 0.0
    return (_from_units(problem.double), 0.0) if problem.size <= _DENSE else _from_probes(problem.double)


def _from_jacobians(double: Problem) -> float:
    """Tr G = Σ_n tr(J_nᵀ (diag p_n − p_n p_nᵀ) J_n) / N of a classifier with the mean cross-entropy."""
    theta = {name: parameter.detach() for name, parameter in double.model.named_parameters()}

    def one(chosen: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(double.model, chosen, (x[None],))[0]

    total = 0.0
    for x in double.batch[0].split(_CHUNK):
        p = double.model(x).detach().softmax(1)
        rows = [part.flatten(2) for part in vmap(jacrev(one), (None, 0))(theta, x).values()]
        means = [torch.einsum("nc,ncp->np", p, part) for part in rows]
        total += sum(float(torch.einsum("nc,ncp,ncp->", p, part, part)) for part in rows)
        total -= sum(float(mean.square().sum()) for mean in means)
    return total / len(double.batch[0])


def dense_rows(double: Problem) -> Iterator[tuple[int, Tensor]]:
    """The rows of H, a block at a time with the place of its first."""
    size, block = double.size, 4 * _CHUNK
    for first in range(0, size, block):
        units = torch.zeros(min(block, size - first), size, dtype=torch.float64, device=double.parameters[0].device)
        units[:, first : first + block].fill_diagonal_(1)
        found = torch.autograd.grad(
            double.slopes, double.parameters, double.split(units), retain_graph=True, is_grads_batched=True
        )
        yield first, torch.cat([part.reshape(len(units), -1) for part in found], 1)


def _from_probes(double: Problem) -> tuple[float, float]:
    vectors = torch.from_numpy(eigsh(_scipy(double), k=_SPAN, which="LM", tol=1e-2, v0=np.ones(double.size))[1])
    Q = torch.linalg.qr(vectors.to(double.parameters[0].device))[0]
    known = sum(float(q @ double.hessian_product(q)) for q in Q.T)
    draws, samples = torch.Generator().manual_seed(1), []
    for _ in range(_PROBES):
        z = 2.0 * torch.randint(0, 2, (double.size,), generator=draws, dtype=torch.float64).to(Q) - 1
        z = z - Q @ (Q.T @ z)
        samples.append(float(z @ double.hessian_product(z)))
    return known + float(np.mean(samples)), float(np.std(samples, ddof=1)) / _PROBES**0.5


def _from_units(double: Problem) -> float:
    return sum(float(rows[:, first : first + len(rows)].diagonal().sum()) for first, rows in dense_rows(double))


def true_spectrum(problem: Problem) -> Tensor | None:
    """All eigenvalues, ascending, from the dense matrix; None where that is too large."""
    if problem.size > _DENSE:
        return None
    matrix = torch.cat([rows for _, rows in dense_rows(problem.double)])
    return torch.linalg.eigvalsh((matrix + matrix.T) / 2).cpu()


class Moved(nn.Module):
    """A network over sequences whose classes come second, as ``nn.CrossEntropyLoss`` takes them."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, V, t)."""
        return self.net(x).mT


def trained(
    name: str, model: nn.Module, batch: tuple[Tensor, Tensor], device: str, rate: float, straight: bool = False
) -> Problem:
    """A problem after full-batch steps of Adam."""
    problem = Problem(
        name, model.to(device), nn.CrossEntropyLoss(), (batch[0].to(device), batch[1].to(device)), straight
    )
    optimizer = torch.optim.Adam(problem.parameters, rate)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        problem.loss(problem.model(problem.batch[0]), problem.batch[1]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return problem


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(count: int, length: int) -> tuple[Tensor, Tensor]:
    """Stretches of the lab's English text and the letters that follow each letter."""
    text = english()
    codes = letters(text.train, text.alphabet)
    starts = torch.randint(0, len(codes) - length - 1, (count,), generator=_draws())
    cut = torch.stack([codes[start : start + length + 1] for start in starts.tolist()])
    return cut[:, :-1], cut[:, 1:]


def gpt(device: str, width: int, count: int, length: int = 32) -> Problem:
    """A transformer of four layers on text."""
    net = GPT(LETTERS, width, 4, 4, length, dtype=torch.float32, generator=_draws())
    return trained(f"GPT 4 × {width}", Moved(net), windows(count, length), device, 3e-3)


def lstm(device: str, width: int, count: int, length: int = 32) -> Problem:
    """A recurrent network on text, which it reads as unit vectors."""
    net = LSTM(LETTERS, width, LETTERS, "orthogonal", "forget", dtype=torch.float32, generator=_draws())
    s, following = windows(count, length)
    x = 10 * nn.functional.one_hot(s, LETTERS).float()
    return trained(f"LSTM {width}", Moved(net), (x, following), device, 1e-2)


def relu_mlp(device: str, images: int = 512) -> Problem:
    """A perceptron on digits."""
    net = MLP([64, 256, 256, 10], activation="relu", generator=_draws())
    return trained("ReLU MLP 64-256-256-10", net, digits(images), device, 1e-3, straight=True)


def tanh_mlp(device: str, images: int = 512) -> Problem:
    """A smooth perceptron on digits."""
    net = MLP([64, 32, 32, 10], activation="tanh", generator=_draws())
    return trained("tanh MLP 64-32-32-10", net, digits(images), device, 3e-3)


def resnet(device: str, images: int = 128) -> Problem:
    """A small residual network on images of digits, without normalisation."""
    net = ResNet([1, 8, 16], 10, norm="none", generator=_draws())
    return trained("ResNet 8-16", net, digits(images, images=True), device, 3e-3, straight=True)


def wide(device: str) -> list[Problem]:
    """Two fixed problems on noise, large enough that arithmetic is what costs."""
    mlp = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    cnn = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    sizes = [("MLP 784-512-512-10", mlp, (256, 784)), ("CNN 3-32-64-64, 32×32", cnn, (64, 3, 32, 32))]
    made = []
    for name, model, shape in sizes:
        batch = torch.randn(shape).to(device), torch.randint(0, 10, shape[:1]).to(device)
        made.append(Problem(name, model.to(device).eval(), nn.CrossEntropyLoss(), batch, straight=True))
    return made


def spectral(device: str) -> list[Problem]:
    """The problems whose spectra are asked for, small enough that the truth can be had."""
    return [relu_mlp(device), tanh_mlp(device), resnet(device), gpt(device, 16, 8), lstm(device, 24, 8)]
