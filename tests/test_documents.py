"""Documents that run: docstring examples, README's Python, and the bibliography's keys."""

from __future__ import annotations

import doctest
import importlib
import re
import tomllib
from pathlib import Path

import pytest

from lemmata.reports.bibliography import known_keys
from lemmata.studies.study import everything

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {"lemmata.studies.benchmarks"}


def modules() -> list[str]:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = []
    for package in packages:
        folder = ROOT.joinpath(*package.split(".")[1:])
        found += [f"{package}.{file.stem}".removesuffix(".__init__") for file in sorted(folder.glob("*.py"))]
    return found


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name: str) -> None:
    """Imported by name: pytest's own collection would load every module a second time in this layout."""
    results = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert results.failed == 0


def test_there_are_examples() -> None:
    counted = [
        doctest.testmod(
            importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        ).attempted
        for name in modules()
        if "analysis" in name
    ]
    assert sum(counted) > 10


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL))
def test_readme_python_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "block.py"
    file.write_text(block)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    made = vars(importlib.reload(importlib.import_module("block")))
    if "pairs" in made:
        assert made["pairs"].converged
        assert made["pairs"].values.shape == (3,)
    elif "tracker" in made:
        assert made["tracker"].track["loss"].values.shape == (4,)
    else:
        assert made["mean_is_zero"].run("quick").verdict.name == "SUPPORTED"


def test_every_source_and_every_citation_is_known() -> None:
    keys = known_keys()
    for study in everything():
        cited = set(
            re.findall(
                r"(?<![\w\\])@([a-z]+\d{4}\w*)", study.abstract + " ".join(claim.statement for claim in study.claims)
            )
        )
        assert cited <= keys, study.name


@pytest.mark.parametrize("folder", ["architectures", "analysis", "studies/data"])
def test_every_source_named_in_a_docstring_is_known(folder: str) -> None:
    keys = known_keys()
    for file in (ROOT / folder).rglob("*.py"):
        named = set(re.findall(r"\b([a-z]{3,}(?:19|20)\d\d[a-z]+)\b", file.read_text(encoding="utf-8")))
        assert named <= keys, file.name


def test_readme_names_only_commands_that_exist() -> None:
    from lemmata.studies.cli import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"^(?:\.venv/bin/)?lemmata (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert named <= commands
    assert {"list", "show", "run", "report", "export", "verify", "examine"} <= commands


def test_the_table_of_architectures_is_the_one_generated():
    from lemmata.studies.families import markdown

    shown = re.search(r"<!-- families[^\n]*-->\n(.*?)\n<!-- /families -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None and shown[1] == markdown(), "paste the output of python -m lemmata.studies.families"
