"""What is shipped: the wheel through the sdist, the namespace, the import arrows, the dependencies."""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("analysis", "architectures", "reports", "studies")
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="compares with git ls-files; run it in a checkout")


def tracked() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    return {
        f"lemmata/{name}"
        for name in listed
        if name and not name.startswith("reports/published/") and (ROOT / name).is_file()
    }


@needs_git
def test_the_wheel_holds_what_git_tracks(tmp_path: Path) -> None:
    """Built through the sdist, as a release is: a forgotten subpackage or data file fails here."""
    subprocess.run(["git", "checkout-index", "-a", f"--prefix={tmp_path}/tree/"], cwd=ROOT, check=True)
    build = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(tmp_path / "tree"),
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    index = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert held == {f"lemmata/{name}" for name in index if not name.startswith("reports/published/")}
    assert any(name.endswith("/pyproject.toml") for name in tarfile.open(sdist).getnames())


def test_every_folder_with_python_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {
        "lemmata." + str(path.parent.relative_to(ROOT)).replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == found
    assert not (ROOT / "__init__.py").exists()


def test_functorch_is_nowhere_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    everything = settings["dependencies"] + [
        name for extra in settings["optional-dependencies"].values() for name in extra
    ]
    assert not [name for name in everything if name.lower().startswith("functorch")]
    assert (ROOT / "constraints.txt").read_text().splitlines()[1] == "torch==2.13.0"


ALLOWED = {
    "analysis": {"analysis"},
    "architectures": {"architectures"},
    "reports": {"reports"},
    "studies": {"analysis", "architectures", "studies", "reports"},
}


def lab_imports(file: Path) -> set[str]:
    """Lemmata packages that a file imports; relative imports stay at home unless they climb out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found |= {name.split(".")[1] for name in names if name.startswith("lemmata.")}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_import_arrows(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        assert lab_imports(file) <= ALLOWED[package], file


def test_no_study_touches_the_reports() -> None:
    """Measure, judge, draw are separate: only the engine hands records to the reports."""
    files = [file for file in (ROOT / "studies").rglob("*.py") if file.parent != ROOT / "studies"]
    assert len(files) > 10
    assert not [file for file in files if "reports" in lab_imports(file)]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("lemmata.analysis", ["matplotlib", "lemmata.studies", "sklearn"]),
        ("lemmata.architectures", ["lemmata.analysis"]),
        ("lemmata.reports.compile", ["torch"]),
    ],
)
def test_light_imports(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_user_s_own_analysis_folder_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").write_text("raise RuntimeError('the user folder was taken')")
    done = subprocess.run(
        [sys.executable, "-c", "import lemmata.analysis as la; la.Hessian"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
