"""Which code a trial depends on, as one hash that wording and predictions do not change.

The hash covers the trial's function, the top-level names of its module that it reaches, the control's keywords, and every
lemmata file that the module imports, transitively; docstrings, comments, figures and the claim engine are left out.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
from functools import cache
from pathlib import Path

from .claim import Claim

_ENGINE = Path(__file__).parent


def code_hash(claim: Claim, arm: str = "") -> str:
    """sha256 of everything that decides a trial's values."""
    module = inspect.getmodule(claim.trial)
    file = Path(inspect.getsourcefile(claim.trial) or "")
    override = json.dumps(claim.controls.get(arm, {}), sort_keys=True, default=repr)
    if not file.is_file():  # typed into a notebook: its own source is all there is
        return _digest(inspect.getsource(claim.trial), override)
    tree = _parsed(file)
    parts = [ast.dump(node) for node in _reached(tree, claim.id)]
    package = (module.__package__ or "") if module else ""
    parts += [_dumped(dependency) for dependency in sorted(_dependencies(file, package))]
    return _digest(*parts, override)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def _parsed(file: Path) -> ast.Module:
    """A file's syntax tree without docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _dumped(file: Path) -> str:
    return ast.dump(_parsed(file))


def _reached(tree: ast.Module, name: str) -> list[ast.stmt]:
    """The statements that the top-level name depends on, in file order; imports always; the claim's decorator never."""
    owners: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for defined in _defined(statement):
            owners.setdefault(defined, []).append(statement)
    wanted, seen = [name], set()
    keep: set[int] = set()
    while wanted:
        current = wanted.pop()
        for statement in owners.get(current, ()) if current not in seen else ():
            keep.add(id(statement))
            wanted += [node.id for node in ast.walk(_without_claim(statement)) if isinstance(node, ast.Name)]
        seen.add(current)
    return [_without_claim(s) for s in tree.body if id(s) in keep or isinstance(s, ast.Import | ast.ImportFrom)]


def _without_claim(statement: ast.stmt) -> ast.stmt:
    """A function without its ``@claim(...)``: the prediction and the grid do not change a trial."""
    if not isinstance(statement, ast.FunctionDef):
        return statement
    kept = [
        d
        for d in statement.decorator_list
        if not (isinstance(d, ast.Call) and ast.unparse(d.func).split(".")[-1] == "claim")
    ]
    fields = {name: getattr(statement, name) for name in statement._fields} | {"decorator_list": kept}
    return ast.FunctionDef(**fields)


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return [
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
    return []


def _dependencies(file: Path, package: str) -> set[Path]:
    """Lemmata files (and a user's own files in the same folder) that a file imports, transitively."""
    found: set[Path] = set()
    waiting = [(file, package)]
    while waiting:
        current, inside = waiting.pop()
        for name in _imported(_parsed(current), inside):
            target = _locate(name, file.parent)
            if target and target[0] not in found and target[0] != file:
                found.add(target[0])
                waiting.append(target)
    return found


def _imported(tree: ast.Module, package: str) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names


def _locate(name: str, folder: Path) -> tuple[Path, str] | None:
    """File and package of a module that counts, or None."""
    beside = folder / f"{name}.py"
    if "." not in name and beside.is_file():
        return beside, ""
    if not name.startswith(("lemmata.analysis", "lemmata.architectures", "lemmata.studies.")):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin)
    if file.parent == _ENGINE and file.name not in ("data.py", "training.py"):
        return None
    return file, name if file.name == "__init__.py" else name.rpartition(".")[0]
