"""The cost of a Hessian or Gauss–Newton product in gradients, beside PyHessian and curvlinops, measured in one run.

Run: ``python -m lemmata.studies.benchmarks.curvature [--device cpu|cuda] [--threads N] [--repeats N] [--json FILE]``.

Every contender gets the same model, batch, vector and threads. One round times each of them once, in turn; ratios are
taken within a round, so that a slow spell of the machine hits both sides. Rows state the median over rounds with the
range of the middle half. Before timing, each product is compared with ours of the same matrix.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.studies.benchmarks.timing import Contender, environment, interleaved, options, write

GRADIENT = "gradient"


@dataclass(frozen=True)
class Row:
    """One contender on one model: its time, its ratio to a gradient, and its disagreement with our product."""

    model: str
    contender: str
    milliseconds: float | None
    ratio: float | None
    low: float | None
    high: float | None
    disagreement: float | None
    note: str = ""

    def __str__(self) -> str:
        if self.ratio is None:
            return f"{self.model:<22} {self.contender:<36} {self.note}"
        gap = "" if self.disagreement is None else f"{self.disagreement:.1e}"
        spread = f"[{self.low:.2f}, {self.high:.2f}]"
        times = f"{self.milliseconds:9.2f} ms {self.ratio:6.2f} × gradient {spread:<14}"
        return f"{self.model:<22} {self.contender:<36} {times} {gap:>8} {self.note}".rstrip()


@dataclass(frozen=True)
class Problem:
    """A model, its loss and one batch, with the vector that is multiplied."""

    name: str
    model: nn.Module
    loss: nn.Module
    batch: tuple[Tensor, Tensor]
    vector: Tensor

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters in order."""
        return list(self.model.parameters())

    def gradient(self) -> tuple[Tensor, ...]:
        """A plain gradient: the unit of cost."""
        return torch.autograd.grad(self.loss(self.model(self.batch[0]), self.batch[1]), self.parameters)


def problems(device: str) -> list[Problem]:
    """The two fixed problems."""
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
        vector = torch.randn(sum(p.numel() for p in model.parameters())).to(device)
        made.append(Problem(name, model.to(device).eval(), nn.CrossEntropyLoss(), batch, vector))
    return made


def flat(parts: Any) -> Tensor:
    """Tensors as one vector."""
    return torch.cat([part.detach().reshape(-1) for part in parts])


def ours(problem: Problem) -> dict[str, Contender]:
    """Our set-up, products in both modes, and one product out of a block of 16."""
    H = la.Hessian(problem.model, problem.loss, problem.batch)
    fresh = la.Hessian(problem.model, problem.loss, problem.batch, memory_cap=0)
    G = la.GGN(problem.model, problem.loss, problem.batch)
    fresh_G = la.GGN(problem.model, problem.loss, problem.batch, memory_cap=0)
    return {
        "lemmata, product": lambda: H @ problem.vector,
        "lemmata, set-up": lambda: la.Hessian(problem.model, problem.loss, problem.batch),
        "lemmata, block of 16": lambda: H @ problem.vector[:, None].expand(-1, 16),
        "lemmata, product, nothing kept": lambda: fresh @ problem.vector,
        "lemmata, GGN product": lambda: G @ problem.vector,
        "lemmata, GGN set-up": lambda: la.GGN(problem.model, problem.loss, problem.batch),
        "lemmata, GGN block of 16": lambda: G @ problem.vector[:, None].expand(-1, 16),
        "lemmata, GGN product, nothing kept": lambda: fresh_G @ problem.vector,
    }


def pyhessian(problem: Problem) -> dict[str, Contender]:
    """PyHessian's set-up and product on one batch."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    def build() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # backward(create_graph=True) warns of a reference cycle
            return hessian(problem.model, problem.loss, data=problem.batch, cuda=problem.vector.is_cuda)

    built = build()
    sizes = [p.numel() for p in built.params]
    pieces = [part.view_as(p) for part, p in zip(problem.vector.split(sizes), built.params, strict=True)]
    return {
        "PyHessian, product": lambda: flat(hessian_vector_product(built.gradsH, built.params, pieces)),
        "PyHessian, set-up": build,
    }


def curvlinops(problem: Problem) -> dict[str, Contender]:
    """curvlinops' set-up (its own checks left on) and product on one batch."""
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    def build(kind: Any, check: bool = True) -> Any:
        return kind(problem.model, problem.loss, problem.parameters, [problem.batch], check_deterministic=check)

    H, G = (build(kind, check=False) for kind in (HessianLinearOperator, GGNLinearOperator))
    return {
        "curvlinops, product": lambda: H @ problem.vector,
        "curvlinops, set-up": lambda: build(HessianLinearOperator),
        "curvlinops, GGN product": lambda: G @ problem.vector,
        "curvlinops, GGN set-up": lambda: build(GGNLinearOperator),
    }


def measure(problem: Problem, device: str, repeats: int) -> list[Row]:
    """All rows of one problem."""
    contenders: dict[str, Contender] = {GRADIENT: problem.gradient}
    missing = []
    for peer in (ours, pyhessian, curvlinops):
        try:
            contenders |= peer(problem)
        except ImportError as error:
            missing.append(Row(problem.name, peer.__name__, None, None, None, None, None, f"not installed: {error}"))
    truths = [contenders[f"lemmata, {kind}product"]() for kind in ("", "GGN ")]
    gaps = {name: disagreement(call(), truths["GGN" in name]) for name, call in contenders.items() if "product" in name}
    rounds = interleaved(contenders, device, repeats)
    return [row(problem.name, name, rounds, gaps.get(name)) for name in contenders] + missing


def disagreement(product: Tensor, truth: Tensor) -> float:
    """Relative distance between two products."""
    return float((product - truth).norm() / truth.norm())


def row(model: str, name: str, rounds: list[dict[str, float]], gap: float | None) -> Row:
    """The median over rounds, per product for a block."""
    share = 16 if "block of 16" in name else 1
    times = [found[name] / share for found in rounds]
    ratios = [found[name] / share / found[GRADIENT] for found in rounds]
    low, _, high = quantiles(ratios, n=4)
    return Row(model, name, 1e3 * median(times), median(ratios), low, high, gap)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    given = options(__doc__.splitlines()[0], arguments)
    about = environment(given.device, given.repeats)
    print("  ".join(f"{key} {value}" for key, value in about.items()))
    rows = []
    for problem in problems(given.device):
        for one in measure(problem, given.device, given.repeats):
            print(one, flush=True)
            rows.append(one)
    write(given.json, about, rows=[asdict(one) for one in rows])


if __name__ == "__main__":
    main()
