"""Which code a trial depends on, as one hash that wording and predictions do not change.

The hash covers the trial's function, the top-level names of its module that it reaches, the control's keywords, and every
lemmata file that the module imports, transitively; docstrings, comments, figures and the claim engine are left out.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from functools import cache
from pathlib import Path

from .claim import Claim, override_text

_ENGINE = Path(__file__).parent


def code_hash(claim: Claim, arm: str = "") -> str:
    """sha256 of everything that decides a trial's values."""
    override = claim.controls.get(arm, {})
    names = [value.__name__ for value in override.values() if hasattr(value, "__name__")]
    file = Path(claim.file)
    package = getattr(inspect.getmodule(claim.trial), "__package__", "") or ""
    parts = [ast.dump(node) for node in _reached(_parsed(file), [claim.id, *names])]
    parts += [_dumped(dependency) for dependency in sorted(_dependencies(file, package))]
    return _digest(*parts, override_text(override))


def mentioned_by(file: Path, name: str) -> list[str]:
    """Every name that a top-level name of a file mentions, directly or through what it reaches in that file."""
    reached = _reached(_parsed(file), [name])
    return [name for node in reached if not isinstance(node, ast.Import | ast.ImportFrom) for name in _mentioned(node)]


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


def _reached(tree: ast.Module, names: list[str]) -> list[ast.stmt]:
    """The statements that the names depend on, in file order; imports always; the claim's decorator never."""
    owners: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for defined in _defined(statement):
            owners.setdefault(defined, []).append(statement)
    if names[0] not in owners:  # a trial made by a function: everything may matter
        return tree.body
    wanted, seen = list(names), set()
    keep: set[int] = set()
    while wanted:
        current = wanted.pop()
        for statement in owners.get(current, ()) if current not in seen else ():
            keep.add(id(statement))
            wanted += _mentioned(_without_claim(statement))
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
    """The top-level names that a statement makes or may change."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return [name for target in targets if target for name in _mentioned(target)]
    return _mentioned(statement)  # `with`, `if`, `try`, `table.update(…)`: whatever they speak of


def _mentioned(node: ast.AST) -> list[str]:
    names = []
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            names.append(part.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(part.name)
        elif isinstance(part, ast.alias):
            names.append(part.asname or part.name.partition(".")[0])
    return names


def _dependencies(file: Path, package: str) -> set[Path]:
    """Lemmata files (and a user's own files in the same folder) that a file imports, transitively."""
    found: set[Path] = set()
    waiting = [(file, package)]
    while waiting:
        for target in _direct(*waiting.pop(), file.parent):
            if target[0] not in found and target[0] != file:
                found.add(target[0])
                waiting.append(target)
    return found


@cache
def _direct(file: Path, package: str, folder: Path) -> list[tuple[Path, str]]:
    """Files that a file imports itself, with their packages; ``folder`` holds a user's own."""
    found = (_locate(name, folder) for name in _imported(_parsed(file), package))
    return [target for target in found if target]


def _imported(tree: ast.Module, package: str) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = _source(node, package)
            names += [found for alias in node.names for found in _providers(module, alias.name)]
    return names


def _source(node: ast.ImportFrom, package: str) -> str:
    """The module that a ``from … import`` names."""
    parents = package.split(".")
    base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
    return ".".join(filter(None, [base, node.module or ""]))


def _providers(module: str, name: str) -> list[str]:
    """Where ``from module import name`` gets it: past a lemmata package that only hands it on, whose others do not count."""
    found = _locate(module, _ENGINE) if module.startswith("lemmata.") else None
    if found is not None and found[0].name == "__init__.py":
        for node in _parsed(found[0]).body:
            if isinstance(node, ast.ImportFrom):
                source = _source(node, module)
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return [f"{module}.{name}"] if source == module else _providers(source, alias.name)
    return [module, f"{module}.{name}"]


def _locate(name: str, folder: Path) -> tuple[Path, str] | None:
    """File and package of a module that counts, or None."""
    if not name:
        return None
    beside = folder.joinpath(*name.split("."))
    if beside.with_suffix(".py").is_file():
        return beside.with_suffix(".py"), name.rpartition(".")[0]
    if (beside / "__init__.py").is_file():
        return beside / "__init__.py", name
    if not name.startswith(("lemmata.analysis", "lemmata.architectures", "lemmata.studies.")):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin)
    if file.parent == _ENGINE and file.name != "training.py":  # data/ counts: it is a folder of its own
        return None
    return file, name if file.name == "__init__.py" else name.rpartition(".")[0]
