"""One adapter for each of the libraries that the curvature benchmark measures beside this one, at its best settings.

PyHessian 0.1 (one batch, graph kept), curvlinops 3.0.1 (its checks of determinism off, except where its set-up itself is
timed), hessian-eigenthings 1.0.0a5 (double backward, full reorthogonalisation). Each is imported where it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from .problems import Problem, by_magnitude, flat

#: Times by which a setting's budget doubles, at most.
RUNGS = 10
#: A work at one setting: from a seed to its result. With the words that state the setting.
Rung = tuple[str, Callable[[int], Any]]
Ladder = list[Rung]


class Peer(Protocol):
    """A library. A ladder is one way to do a work, its settings in growing budget; every call counts its set-up."""

    name: str

    def products(self, problem: Problem, vector: Tensor) -> dict[str, Callable[[], Any]]:
        """Products and set-ups, by what they are."""
        ...

    def eigenvalues(self, problem: Problem, k: int) -> dict[str, Ladder]:
        """Ways to the k eigenvalues of largest magnitude."""
        ...

    def traces(self, problem: Problem) -> dict[str, Ladder]:
        """Ways to the trace."""
        ...

    def density(self, problem: Problem, steps: int, probes: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Nodes and weights of the spectral density."""
        ...


class PyHessian:
    """Power iteration with deflation, and random signs one at a time."""

    name = "PyHessian"

    def _build(self, problem: Problem) -> Any:
        from pyhessian import hessian

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # backward(create_graph=True) warns of a reference cycle
            return hessian(problem.model, problem.loss, data=problem.batch, cuda=problem.parameters[0].is_cuda)

    def products(self, problem: Problem, vector: Tensor) -> dict[str, Callable[[], Any]]:
        """Its Hessian."""
        from pyhessian.utils import hessian_vector_product

        built, pieces = self._build(problem), problem.split(vector)
        return {
            "product": lambda: flat(hessian_vector_product(built.gradsH, built.params, pieces)),
            "set-up": lambda: self._build(problem),
        }

    def eigenvalues(self, problem: Problem, k: int) -> dict[str, Ladder]:
        """From its defaults on, twice the steps at a quarter of the tolerance."""

        def run(steps: int, tol: float, seed: int) -> Tensor:
            torch.manual_seed(seed)
            return by_magnitude(torch.tensor(self._build(problem).eigenvalues(maxIter=steps, tol=tol, top_n=k)[0]))

        rungs = [(100 * 2**i, 1e-3 / 4**i) for i in range(RUNGS)]
        return {"": [(f"maxIter={n}, tol={tol:.0e}", _seeded(run, n, tol)) for n, tol in rungs]}

    def traces(self, problem: Problem) -> dict[str, Ladder]:
        """Its rule of stopping, which looks at one step of the mean, switched off."""

        def run(probes: int, seed: int) -> float:
            torch.manual_seed(seed)
            found = self._build(problem).trace(maxIter=probes, tol=0.0)
            return sum(found) / len(found)

        return {"": [(f"{n} probes", _seeded(run, n)) for n in doubling(10)]}

    def density(self, problem: Problem, steps: int, probes: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """It calls torch.eig, which PyTorch removed in version 1.13."""

        def run(seed: int) -> tuple[Tensor, Tensor]:
            torch.manual_seed(seed)
            nodes, weights = self._build(problem).density(iter=steps, n_v=probes)
            return torch.tensor(nodes), torch.tensor(weights)

        return run


class Curvlinops:
    """Products on a matrix by vmap, eigenvalues by SciPy's ARPACK."""

    name = "curvlinops"

    def _build(self, problem: Problem, kind: str = "Hessian", check: bool = False) -> Any:
        import curvlinops

        build = getattr(curvlinops, f"{kind}LinearOperator")
        return build(problem.model, problem.loss, problem.parameters, [problem.batch], check_deterministic=check)

    def products(self, problem: Problem, vector: Tensor) -> dict[str, Callable[[], Any]]:
        """Its Hessian and GGN; their set-up as it comes, with its checks."""
        H, G = self._build(problem), self._build(problem, "GGN")
        return {
            "product": lambda: H @ vector,
            "set-up": lambda: self._build(problem, check=True),
            "GGN product": lambda: G @ vector,
            "GGN set-up": lambda: self._build(problem, "GGN", check=True),
        }

    def eigenvalues(self, problem: Problem, k: int) -> dict[str, Ladder]:
        """ARPACK with its own number of vectors, and with twice as many."""

        def run(vectors: int, tol: float, seed: int) -> Tensor:
            torch.manual_seed(seed)
            operator, start = self._build(problem).to_scipy(), torch.randn(problem.size).numpy()
            options = {"which": "LM", "v0": start, "return_eigenvectors": False}
            return by_magnitude(torch.from_numpy(eigsh(operator, k=k, ncv=vectors, tol=tol, **options)))

        tolerances = [0.8, 0.4, 0.2, 0.1, 0.05, 0.025, 0.01, 1e-3, 1e-4]
        return {
            f"ARPACK, ncv={m}": [(f"tol={tol:g}", _seeded(run, m, tol)) for tol in tolerances]
            for m in (2 * k + 1, 4 * k)
        }

    def traces(self, problem: Problem) -> dict[str, Ladder]:
        """Its three estimators, each with all its vectors in one block."""
        import curvlinops

        def run(name: str, products: int, seed: int) -> float:
            torch.manual_seed(seed)
            return float(getattr(curvlinops, name)(self._build(problem), products))

        numbers = {"hutchinson_trace": doubling(10), "hutchpp_trace": doubling(12), "xtrace": doubling(10)}
        return {
            name: [(f"{n} products", _seeded(run, name, n)) for n in some if n < problem.size]
            for name, some in numbers.items()
        }

    def density(self, problem: Problem, steps: int, probes: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Its Lanczos iteration without reorthogonalisation, smoothed on a grid of 1024 points."""
        from curvlinops.papyan2020traces.spectrum import lanczos_approximate_spectrum

        def run(seed: int) -> tuple[Tensor, Tensor]:
            torch.manual_seed(seed)
            grid, height = lanczos_approximate_spectrum(self._build(problem), steps, num_repeats=probes)
            return grid, height / height.sum()

        return run


class HessianEigenthings:
    """Lanczos, and trace estimators one vector at a time."""

    name = "hessian-eigenthings"

    def _build(self, problem: Problem) -> Any:
        from hessian_eigenthings import HessianOperator, supervised_loss

        return HessianOperator(problem.model, [problem.batch], supervised_loss(problem.loss))

    def products(self, problem: Problem, vector: Tensor) -> dict[str, Callable[[], Any]]:
        """Its Hessian and GGN."""
        from hessian_eigenthings import GGNOperator, supervised_forward, supervised_loss_of_output

        def gauss_newton() -> Any:
            given = supervised_forward, supervised_loss_of_output(problem.loss)
            return GGNOperator(problem.model, [problem.batch], *given)

        H, G = self._build(problem), gauss_newton()
        return {
            "product": lambda: H @ vector,
            "set-up": lambda: self._build(problem),
            "GGN product": lambda: G @ vector,
            "GGN set-up": gauss_newton,
        }

    def eigenvalues(self, problem: Problem, k: int) -> dict[str, Ladder]:
        """Lanczos, more steps by a quarter each time."""
        from hessian_eigenthings import lanczos

        def run(steps: int, seed: int) -> Tensor:
            found = lanczos(self._build(problem), k=k, max_iter=steps, reorthogonalize=True, seed=seed)
            return by_magnitude(found.eigenvalues)

        numbers = [int(2 * k * 1.25**i) for i in range(RUNGS + 4)]
        return {"Lanczos": [(f"{n} steps", _seeded(run, n)) for n in numbers if n <= problem.size]}

    def traces(self, problem: Problem) -> dict[str, Ladder]:
        """Both of its estimators."""
        from hessian_eigenthings import trace

        def run(method: str, products: int, seed: int) -> float:
            return trace(self._build(problem), num_matvecs=products, method=method, seed=seed).estimate

        numbers = {"hutchinson": doubling(10), "hutch++": doubling(12)}
        return {method: [(f"{n} products", _seeded(run, method, n)) for n in some] for method, some in numbers.items()}

    def density(self, problem: Problem, steps: int, probes: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Its Lanczos quadrature, smoothed on a grid of 1024 points too; the nodes are taken before that."""
        from hessian_eigenthings import spectral_density

        def run(seed: int) -> tuple[Tensor, Tensor]:
            given = {"num_runs": probes, "lanczos_steps": steps, "num_grid_points": 1024, "seed": seed}
            found = spectral_density(self._build(problem), **given)
            return found.raw_eigenvalues.nan_to_num().flatten(), (found.raw_weights / probes).flatten()

        return run


PEERS: tuple[Peer, ...] = (PyHessian(), Curvlinops(), HessianEigenthings())


def doubling(first: int) -> list[int]:
    """A number and its doubles.

    >>> doubling(10)[:3]
    [10, 20, 40]
    """
    return [first * 2**i for i in range(RUNGS)]


def _seeded(run: Callable[..., Any], *setting: Any) -> Callable[[int], Any]:
    return lambda seed: run(*setting, seed)
