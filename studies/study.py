"""A study: a module whose docstring is its abstract and whose namespace holds claims."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import final

from lemmata.reports.record import Table

from . import STUDIES
from .claim import Claim
from .errors import ClaimError, StudyError, UnknownName


@final
@dataclass(frozen=True)
class Study:
    """A study's name, words and claims, in the order of its file, and what makes its tables: the file's ``tables``."""

    name: str
    origin: str
    title: str
    abstract: str
    claims: tuple[Claim, ...]
    tables: Callable[[], tuple[Table, ...]]


@cache
def load(origin: str) -> Study:
    """Load a study from an importable module's name or from a file.

    Raises
    ------
    ClaimError : the file holds no claim, two of one name, or one that cannot be made.
    StudyError : the import fails, whatever the reason.

    """
    if origin.endswith(".py") and not Path(origin).is_file():
        raise UnknownName(
            f"no file {origin}: a study was run from it; put it back, or run the study from where it is now."
        )
    module = _imported(origin)
    claims: dict[str, Claim] = {}
    for value in vars(module).values():
        if isinstance(value, Claim) and value.trial.__module__ == module.__name__:
            if claims.setdefault(value.id, value) is not value:
                raise ClaimError(f"{origin} holds two claims called {value.id!r}: give each trial a name of its own.")
    if not claims:
        raise ClaimError(f"{origin} holds no claim: decorate a trial with @claim(...) from lemmata.studies.claim.")
    first, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n")
    name = next(iter(claims.values())).study
    title = first.strip().removesuffix(".") or name
    return Study(name, origin, title, rest.strip(), tuple(claims.values()), getattr(module, "tables", tuple))


def _imported(origin: str) -> ModuleType:
    try:
        return _import_file(Path(origin)) if origin.endswith(".py") else importlib.import_module(origin)
    except StudyError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
        where = f" (line {lines[-1]})" if lines else ""
        raise StudyError(f"{origin} cannot be imported{where}: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    name = f"lemmata_claims_{path.stem}"
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # a claim file may import its neighbours
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ClaimError(f"{path} cannot be imported as a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def find_claim(origin: str, id_: str) -> Claim:
    """A claim by the place a task names."""
    for claim in load(origin).claims:
        if claim.id == id_:
            return claim
    raise UnknownName(f"{origin} holds no claim {id_!r}.")


def resolve(name: str) -> list[str]:
    """Origins of the studies a name on the command line means: a study, its last part, a whole area, or a file.

    Raises
    ------
    UnknownName : with the nearest names.

    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UnknownName(f"no file {name}.")
        return [str(Path(name).resolve())]
    wanted = name.strip("/").replace("-", "_")
    chosen = [s for s in STUDIES if wanted in (s, s.partition("/")[0], s.rpartition("/")[2])]
    if not chosen:
        raise UnknownName(f"no study {name!r}. {nearest(wanted, _study_names())}")
    return [f"lemmata.studies.{study.replace('/', '.')}" for study in chosen]


def _study_names() -> list[str]:
    areas = dict.fromkeys(study.partition("/")[0] for study in STUDIES)
    return [*STUDIES, *areas, *(study.rpartition("/")[2] for study in STUDIES)]


def nearest(name: str, names: list[str]) -> str:
    """A sentence with the nearest names, or where to see them all."""
    close = list(dict.fromkeys(difflib.get_close_matches(name, names, n=4, cutoff=0.5)))
    return f"Did you mean {' or '.join(close)}?" if close else "`lemmata list` names them all."


def everything() -> list[Study]:
    """All of the lab's own studies."""
    return [load(f"lemmata.studies.{study.replace('/', '.')}") for study in STUDIES]
