"""Best polynomials against closed forms, a linear program and Bernstein's constant."""

from __future__ import annotations

import json
from math import sqrt

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.optimize import linprog

from lemmata.analysis import Minimax, remez
from lemmata.analysis.errors import ArgumentError, NumericsError


@pytest.mark.parametrize("degree", [0, 1, 2, 5, 10])
def test_chebyshev(degree: int) -> None:
    """xⁿ⁺¹ less the best polynomial is a Chebyshev polynomial, of size 2⁻ⁿ."""
    best = remez(lambda x: x ** (degree + 1), degree)
    assert best.converged and best.lower <= 2.0**-degree <= best.upper
    assert best.upper == pytest.approx(2.0**-degree, rel=1e-9)


@pytest.mark.parametrize(("degree", "error"), [(0, 0.5), (1, 0.5), (2, 0.125), (3, 0.125), (4, 0.0676208991)])
def test_absolute_value(degree: int, error: float) -> None:
    """Known minimax errors of |x|; even degrees start from a reference that symmetry makes useless."""
    best = remez(torch.abs, degree)
    assert best.converged and best.upper == pytest.approx(error, rel=1e-8)


@pytest.mark.parametrize(("degree", "a"), [(0, 2.0), (3, 2.0), (10, 2.0), (20, 1.25)])
def test_a_pole(degree: int, a: float) -> None:
    """E_n of 1/(x − a) is (a − √(a² − 1))ⁿ/(a² − 1), as Chebyshev found."""
    best = remez(lambda x: 1 / (x - a), degree)
    truth = (a - sqrt(a * a - 1)) ** degree / (a * a - 1)
    assert best.converged and best.lower <= truth <= best.upper and best.upper == pytest.approx(truth, rel=1e-7)


def test_bernstein() -> None:
    """2n E_2n(|x|) → 0.28016949902…, from below, with the next term −0.04397/n²."""
    n = 64
    found = 2 * n * remez(torch.abs, 2 * n).upper
    assert found == pytest.approx(0.2801694990 - 0.0439675 / n**2, abs=1e-6)


def test_by_linear_programming() -> None:
    f = lambda x: torch.sin(3 * x) + (x - 0.2).abs()  # noqa: E731
    best = remez(f, 6, (-0.5, 2.0))
    x = np.linspace(-0.5, 2.0, 4001)
    y = f(torch.from_numpy(x)).numpy()
    A, ones = np.polynomial.chebyshev.chebvander((x - 0.75) / 1.25, 6), np.ones((len(x), 1))
    program = linprog([0] * 7 + [1], np.block([[A, -ones], [-A, -ones]]), np.concatenate([y, -y]), bounds=(None, None))
    assert program.fun == pytest.approx(best.upper, rel=1e-5)


def test_the_polynomial_has_that_error_and_it_takes_turns() -> None:
    best = remez(torch.exp, 4, (0.0, 2.0))
    x = torch.linspace(0, 2, 10001, dtype=torch.float64)
    assert float((best(x) - x.exp()).abs().max()) == pytest.approx(best.upper, rel=1e-6)
    reference = torch.tensor(best.reference, dtype=torch.float64)
    errors = reference.exp() - best(reference)
    assert len(reference) == 6 and bool((errors[1:] * errors[:-1] < 0).all())
    assert float(errors.abs().min()) == pytest.approx(best.lower, rel=1e-6)


def test_any_other_polynomial_is_worse() -> None:
    best = remez(torch.exp, 3)
    x = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    other = Minimax(**{**vars(best), "coefficients": tuple(c + 1e-4 for c in best.coefficients)})
    assert float((other(x) - x.exp()).abs().max()) > best.upper * 1.01


def test_a_polynomial_of_the_degree_has_no_error() -> None:
    best = remez(lambda x: x**3 - x, 5)
    assert best.converged and best.lower == 0 and best.upper < 1e-13


def test_it_says_when_it_stopped_early() -> None:
    best = remez(torch.abs, 20, exchanges=1)
    assert not best.converged and best.lower < best.upper and "not converged" in repr(best)
    assert best.lower <= remez(torch.abs, 20).lower <= best.upper


def test_record_and_picture() -> None:
    best = remez(torch.abs, 4)
    assert Minimax.from_dict(json.loads(json.dumps(best.to_dict()))) == best
    assert best.plot(torch.abs, Figure().subplots()).get_ylabel() == "f − p"
    assert best.plot(torch.abs).lines


@pytest.mark.parametrize(
    ("name", "call", "remedy"),
    [
        ("f", lambda: remez(3.0, 2), "torch.abs"),
        ("f", lambda: remez(lambda x: x.sum(), 2), "tensor of values"),
        ("degree", lambda: remez(torch.abs, -1), "degree of the polynomial"),
        ("degree", lambda: remez(torch.abs, 2.0), "degree of the polynomial"),
        ("interval", lambda: remez(torch.abs, 2, (1.0, 1.0)), "interval=(-1.0, 1.0)"),
        ("tol", lambda: remez(torch.abs, 2, tol=0.0), "tol=1e-9"),
        ("exchanges", lambda: remez(torch.abs, 2, exchanges=0), "100"),
    ],
)
def test_bad_input(name: str, call, remedy: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.name == name and remedy in str(caught.value)


def test_an_infinite_value_is_named() -> None:
    with pytest.raises(NumericsError) as caught:
        remez(torch.log, 3, (0.0, 1.0))
    assert "0.0 ↦" in str(caught.value) and "interval" in caught.value.remedy
