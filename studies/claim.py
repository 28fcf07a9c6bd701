"""A claim: a published theorem, a trial that measures it, a prediction that judges and controls that must fail."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from lemmata.reports.bibliography import known_keys
from lemmata.reports.record import Table

from . import STUDIES
from .errors import ClaimError
from .prediction import Prediction
from .predictions import AtLeast, AtMost, Distributed, Equals, Scales

if TYPE_CHECKING:
    from .verdict import Result

__all__ = [
    "AtLeast",
    "AtMost",
    "Claim",
    "Distributed",
    "Equals",
    "Grid",
    "Scales",
    "Table",
    "Task",
    "claim",
    "trial_seed",
]

Profile = Literal["quick", "full"]
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
VERDICTS = ("SUPPORTED", "REFUTED", "INCONCLUSIVE", "DEPENDS", "INVALID")


@final
@dataclass(frozen=True, init=False)
class Grid:
    """A full grid of coordinates, and how many seeds each point gets.

    >>> len(list(Grid(seeds=5, width=[64, 128], depth=[1, 2]).points()))
    4
    """

    seeds: int
    coordinates: Mapping[str, tuple[Any, ...]]

    def __init__(self, *, seeds: int, **coordinates: Sequence[Any]) -> None:
        object.__setattr__(self, "seeds", seeds)
        object.__setattr__(self, "coordinates", {name: _values(name, values) for name, values in coordinates.items()})

    def points(self) -> Iterator[dict[str, Any]]:
        """Every combination of the coordinates, in the order written."""
        for values in itertools.product(*self.coordinates.values()):
            yield dict(zip(self.coordinates, values, strict=True))

    def __repr__(self) -> str:
        """The grid as it is written in a study."""
        sizes = ", ".join(f"{name}={list(values)}" for name, values in self.coordinates.items())
        return f"Grid({sizes + ', ' if sizes else ''}seeds={self.seeds})"


def _values(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise ClaimError(
            f"coordinate {name!r} of a grid is {values!r}; pass a list of values, for example {name}=[{values!r}]."
        )
    try:
        plain = tuple(value.item() if hasattr(value, "item") else value for value in values)  # NumPy's numbers
        distinct = {canonical({name: value}) for value in plain}
    except (TypeError, ValueError) as error:
        raise ClaimError(
            f"coordinate {name!r} of a grid: {error}; use finite numbers, strings, booleans or None."
        ) from error
    if len(distinct) < len(plain):
        raise ClaimError(f"coordinate {name!r} of a grid holds a value twice: {list(plain)}.")
    return plain


@final
@dataclass(frozen=True)
class Task:
    """One trial to run: enough for a worker to look it up and call it."""

    origin: str  # an importable module name, or the path of a file
    claim: str
    arm: str  # "" for the claim itself, else the control's name
    point: str  # canonical JSON
    k: int
    salt: str
    device: str
    dtype: str = "float64"

    @property
    def identity(self) -> tuple[str, str, str, int, str, str, str]:
        """What names this trial's row in a ledger, the generation apart."""
        return self.claim, self.arm, self.point, self.k, self.salt, self.device, self.dtype

    @property
    def seed(self) -> int:
        """The trial's seed; every arm shares it, so that a control differs in its hypothesis alone."""
        return trial_seed(self.claim, self.point, self.k, self.salt)

    def __str__(self) -> str:
        """Name of the trial in messages."""
        arm = f" [control: {self.arm}]" if self.arm else ""
        return f"{self.claim}{arm} at {self.point} seed {self.k}"


def canonical(point: Mapping[str, Any]) -> str:
    """Canonical JSON of a point."""
    return json.dumps(point, sort_keys=True, allow_nan=False, separators=(",", ":"))


def override_text(override: Any) -> str:
    """A control's keywords as text that is the same in every process: functions and classes by name, arrays by value."""
    return json.dumps(override, sort_keys=True, default=_told)


def _told(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return [str(value.dtype), value.tolist()]
    name = getattr(value, "__qualname__", "")
    text = f"{value.__module__}.{name}" if name else repr(value)
    if "<lambda>" in text or "<locals>" in text or " at 0x" in text:
        raise TypeError(
            f"{value!r} has no name that lasts; pass a number, a string, or a function of the module's top level."
        )
    return text


def trial_seed(claim: str, point: str, k: int, salt: str = "") -> int:
    """Seed of a trial, a hash of its name: adding points or workers changes no other trial.

    >>> trial_seed("c", "{}", 0) == trial_seed("c", "{}", 0) != trial_seed("c", "{}", 1)
    True
    """
    name = json.dumps([claim, point, k, salt]).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1  # 63 bits: what every generator takes


@contextmanager
def numerics(device: str = "cpu", dtype: str = "float64") -> Iterator[None]:
    """Torch's default dtype and device while a trial runs; restored afterwards."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        if device == "cpu":
            yield
        else:
            with torch.device(device):
                yield
    finally:
        torch.set_default_dtype(before)


Draw = Callable[..., Mapping[str, Sequence[Any]]]


@final
@dataclass(frozen=True)
class Claim:
    """A theorem that can be run. Made by ``@claim``; calling it calls the trial."""

    trial: Callable[..., Any]
    sources: tuple[str, ...]
    predicts: Prediction
    quick: Grid
    full: Grid
    controls: Mapping[str, Mapping[str, Any]]
    expects: str = "SUPPORTED"
    switch: str = ""
    figures: tuple[Draw, ...] = ()
    timeout: float = 600.0
    id: str = field(init=False)
    title: str = field(init=False)
    statement: str = field(init=False)

    def __post_init__(self) -> None:
        first, _, rest = inspect.cleandoc(self.trial.__doc__ or "").partition("\n")
        object.__setattr__(self, "id", self.trial.__name__)
        object.__setattr__(self, "title", first.strip().removesuffix("."))
        object.__setattr__(self, "statement", rest.strip())
        try:
            self._check()
        except ClaimError as error:
            raise ClaimError(f"claim {self.id}: {error}") from None

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Run one trial in float64 on the CPU."""
        with numerics():
            return self.trial(*args, **keywords)

    @property
    def file(self) -> str:
        """The file that the trial is written in (not a decorator's); "" for one typed into a notebook."""
        return inspect.getsourcefile(inspect.unwrap(self.trial)) or ""

    @property
    def origin(self) -> str:
        """Where a worker finds the claim: its module's name, or its file when the module is not importable by name."""
        module = self.trial.__module__
        return module if module.startswith("lemmata.") else self.file or module

    @property
    def study(self) -> str:
        """Name of the study: ``area/study`` for the lab's own, the file's name for a user's."""
        parts = self.trial.__module__.split(".")
        return "/".join(parts[2:]) if parts[:2] == ["lemmata", "studies"] else Path(self.origin).stem

    def grid(self, profile: Profile) -> Grid:
        """The grid of a profile."""
        return self.quick if profile == "quick" else self.full

    def tasks(self, profile: Profile, device: str = "cpu", salt: str = "") -> list[Task]:
        """Every trial of a profile: the claim's own arm, then each control on the same points and seeds."""
        grid = self.grid(profile)
        points = [canonical(point) for point in grid.points()]
        arms = ["", *self.controls]
        product = itertools.product(arms, points, range(grid.seeds))
        return [Task(self.origin, self.id, arm, point, k, salt, device) for arm, point, k in product]

    def run(self, profile: Profile = "quick", salt: str = "") -> Result:
        """Run every trial in this process, keep the rows in memory and judge: what a notebook wants."""
        from .verdict import run_here

        return run_here(self, profile, salt)

    def _check(self) -> None:
        if not self.title:
            raise ClaimError("the docstring is the theorem: give the trial one, its first line a plain-text title.")
        if not self.controls:
            raise ClaimError(
                "a claim without a control cannot be made: pass controls={'hypothesis removed': dict(keyword=value)}."
            )
        if not self.timeout > 0:
            raise ClaimError(f"timeout={self.timeout!r}: give the seconds that one trial may take.")
        if self.expects not in VERDICTS:
            raise ClaimError(f"expects={self.expects!r} is no verdict; choose one of {', '.join(VERDICTS)}.")
        self._check_sources()
        parameters = inspect.signature(self.trial).parameters
        for name, grid in (("quick", self.quick), ("full", self.full)):
            self._check_grid(name, grid, parameters)
        for name, override in self.controls.items():
            self._check_control(name, override, parameters)

    def _check_sources(self) -> None:
        beside = Path(self.file).parent / "references.bib"
        known = known_keys() | (known_keys(beside) if beside.is_file() else frozenset())
        for key in self.sources:
            if key not in known:
                raise ClaimError(f"source {key!r} is not in reports/references.bib; add its BibTeX entry there.")

    def _check_grid(self, name: str, grid: Grid, parameters: Mapping[str, inspect.Parameter]) -> None:
        for coordinate, values in grid.coordinates.items():
            if not values:
                raise ClaimError(f"the {name} grid is empty: coordinate {coordinate!r} has no values.")
            if coordinate not in parameters or coordinate == "seed":
                raise ClaimError(f"the {name} grid has {coordinate!r}, but the trial takes {', '.join(parameters)}.")
        if grid.seeds < 1:
            raise ClaimError(f"the {name} grid is empty: seeds={grid.seeds}; give at least 1.")
        if "seed" not in parameters:
            raise ClaimError("the trial must take a parameter named 'seed'.")
        for needed, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind not in _VARIADIC
            if required and needed != "seed" and needed not in grid.coordinates:
                raise ClaimError(
                    f"the trial needs {needed!r}, which is no coordinate of the {name} grid and has no default."
                )
        if self.switch and self.switch not in grid.coordinates:
            raise ClaimError(
                f"switch={self.switch!r} must be a coordinate of the {name} grid ({', '.join(grid.coordinates)})."
            )
        self.predicts.check_grid(grid.coordinates, grid.seeds)

    def _check_control(
        self, name: str, override: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
    ) -> None:
        if not name or not override:
            raise ClaimError(
                f"control {name!r} overrides nothing: name the hypothesis it removes and pass the keywords."
            )
        try:
            override_text(override)
        except TypeError as error:
            raise ClaimError(f"control {name!r}: {error}") from None
        for keyword, value in override.items():
            if keyword not in parameters or keyword == "seed":
                raise ClaimError(
                    f"control {name!r} overrides {keyword!r}, but the trial takes {', '.join(parameters)}."
                )
            default = parameters[keyword].default
            if default is not inspect.Parameter.empty and override_text(default) == override_text(value):
                raise ClaimError(
                    f"control {name!r} sets {keyword}={value!r}, which is the default: nothing is removed."
                )


def claim(
    *,
    source: str | tuple[str, ...],
    predicts: Prediction,
    quick: Grid,
    full: Grid,
    controls: Mapping[str, Mapping[str, Any]],
    expects: str = "SUPPORTED",
    switch: str = "",
    figures: Sequence[Draw] = (),
    timeout: float = 600.0,
) -> Callable[[Callable[..., Any]], Claim]:
    """Make a claim of a trial.

    The decorated function is the trial: a pure function of a grid point, ``seed`` and keywords, returning a number, or a flat
    dict of numbers and arrays whose entry ``"value"`` is judged. Its docstring is the theorem: a plain-text title, then
    Typst markup. A control is a keyword override that removes one hypothesis and must fail.

    Parameters
    ----------
    source : keys of ``reports/references.bib`` (or of a ``references.bib`` beside your own file).
    predicts : Equals, AtMost, AtLeast, Scales or Distributed.
    quick, full : the two sizes; they differ in sizes, never in the claim.
    controls : name of the removed hypothesis → keywords.
    expects : the verdict the literature says.
    switch : a grid coordinate over which the verdict may differ (DEPENDS); declared before the first run.
    figures : functions ``draw(ax, rows) -> columns`` with a caption (first line) and alt text (the rest) as docstring.
    timeout : seconds one trial may take.

    Raises
    ------
    ClaimError : whatever is missing, with the claim's name and the remedy.

    """
    sources = (source,) if isinstance(source, str) else tuple(source)

    def decorate(trial: Callable[..., Any]) -> Claim:
        return Claim(trial, sources, predicts, quick, full, dict(controls), expects, switch, tuple(figures), timeout)

    return decorate


def script(file: str) -> None:
    """Run a study file as a script: hand it to the command line, which runs the installed module."""
    from .cli import main

    path = Path(file).resolve()
    study = f"{path.parent.name}/{path.stem}"
    main(["run", study if study in STUDIES else str(path), *sys.argv[1:]])
