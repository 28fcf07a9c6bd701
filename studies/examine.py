"""A physical of a user's own model: what it is, where it stands, how its loss surface curves there."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import StudyError


def examine(factory: str, console: Console) -> None:
    """Print size, loss, gradient and the two ends of the Hessian's spectrum with residual intervals.

    Raises
    ------
    StudyError : the factory cannot be found, or does not return ``(model, loss, data)``.

    """
    import lemmata.analysis as la

    model, loss, data = _made(factory)
    hessian = la.Hessian(model, loss, data)
    console.print(Text(repr(hessian)))
    console.print(Text(f"plan: {hessian.plan(40)}", style="dim"))
    pairs = la.eigenpairs(hessian, k=min(3, hessian.shape[0]), which="both")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("parameters", str(sum(p.numel() for p in model.parameters())))
    facts.add_row("loss", f"{float(hessian.value):.6g}")
    facts.add_row("gradient norm", f"{float(hessian.gradient.norm()):.4g}")
    for value, residual in zip(pairs.values.tolist(), pairs.residuals.tolist(), strict=True):
        facts.add_row("eigenvalue", f"{value:.6g} ± {residual:.1g}")
    facts.add_row("products", f"{pairs.matvecs}{'' if bool(pairs.converged) else ' (not converged to the tolerance)'}")
    console.print(facts)
    largest = float(pairs.values.max())
    if largest > 0:
        console.print(f"Gradient descent is locally stable for steps below 2/λ_max = {2 / largest:.4g}.")


def _made(factory: str) -> tuple[Any, Any, Any]:
    name, _, function = factory.partition(":")
    if not function:
        raise StudyError(f"{factory!r}: expected module:factory, for example mymodel:build.")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(name), function)()
    except (ImportError, AttributeError) as error:
        raise StudyError(
            f"{factory!r} cannot be called: {error}. Run from the folder of {name}.py, or install it."
        ) from error
    if not (isinstance(made, tuple) and len(made) == 3):
        raise StudyError(f"{factory!r} returned {type(made).__name__}; expected the tuple (model, loss, data).")
    return made
