"""The command line as a new user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lemmata.studies
from lemmata.studies import STUDIES
from lemmata.studies.study import everything

GOOD = '''
@claim(predicts=Equals(0, within=0.5), controls={"centred draws": dict(shift=2.0)}, source="me2026",
       quick=Grid(n=[64], seeds=8), full=Grid(n=[64], seeds=9))
def mean_is_zero(n: int, seed: int, shift: float = 0.0) -> float:
    """The mean of centred draws is near zero."""
    return float(np.random.default_rng(seed).normal(size=n).mean() + shift)
'''
REFUTED = GOOD.replace("mean_is_zero", "mean_is_three").replace("Equals(0", "Equals(3")


def lemmata_(*arguments: str, cwd: Path | None = None, traced: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-X", "importtime"] if traced else []), "-m", "lemmata.studies.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)


def imports_torch(done: subprocess.CompletedProcess[str]) -> bool:
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def said(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["list"], ["run", "no_such_study"], ["run"], ["run", "--profile", "huge", "x"]],
)
def test_help_names_and_usage_errors_import_no_torch(arguments: list[str]) -> None:
    done = lemmata_(*arguments, traced=True)
    assert not imports_torch(done)
    assert done.returncode == (0 if arguments[0] in ("--help", "--version", "list") else 2)


def test_the_torch_detector_sees_torch() -> None:
    assert imports_torch(lemmata_("show", "no_such_claim", traced=True))


def test_unknown_names_get_the_nearest() -> None:
    done = lemmata_("run", "edge_of_stabilty")
    assert done.returncode == 2
    assert "Did you mean" in said(done)
    assert "edge_of_stability" in said(done)
    done = lemmata_("show", "yarotsky-sqare")
    assert done.returncode == 2
    assert "yarotsky_square" in said(done)


def test_cuda_without_cuda_is_one_line() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA; the message is for one that has not")
    done = lemmata_("run", STUDIES[0], "--device", "cuda")
    assert done.returncode == 2
    assert len(said(done).strip().splitlines()) == 1
    assert "CUDA" in said(done)


def test_exit_status_tells_the_verdict(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    assert lemmata_("run", str(claims_file(GOOD)), "--out", str(tmp_path / "good")).returncode == 0
    refuted = lemmata_("run", str(claims_file(REFUTED, "other")), "--out", str(tmp_path / "bad"))
    assert refuted.returncode == 1
    assert "REFUTED (expected SUPPORTED)" in refuted.stdout


def test_a_run_s_folder_reports_exports_and_verifies(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    file, one, two, salted = claims_file(GOOD), tmp_path / "one", tmp_path / "two", tmp_path / "salted"
    assert lemmata_("run", str(file), "--out", str(one)).returncode == 0
    found = json.loads((one / "verdicts.json").read_text())
    assert found["mean_is_zero"]["verdict"] == "SUPPORTED"
    assert found["mean_is_zero"]["controls"] == {"centred draws": "fails"}
    pages = {path.name: path.read_bytes() for path in one.rglob("*") if path.suffix in (".html", ".pdf")}
    assert {"index.html", "my_claims.html", "my_claims.pdf"} <= set(pages)
    for path in one.rglob("*"):
        if path.suffix in (".html", ".pdf"):
            path.unlink()
    assert lemmata_("report", str(one)).returncode == 0
    assert {path.name: path.read_bytes() for path in one.rglob("*") if path.suffix in (".html", ".pdf")} == pages
    lines = [json.loads(line) for line in lemmata_("export", str(one)).stdout.splitlines()]
    assert len(lines) == 16
    assert {line["arm"] for line in lines} == {"", "centred draws"}
    lemmata_("run", str(file), "--out", str(two))
    assert lemmata_("verify", str(one), str(two)).returncode == 0
    lemmata_("run", str(file), "--out", str(salted), "--salt", "again")
    differ = lemmata_("verify", str(one), str(salted))
    assert differ.returncode == 1
    assert "16 differ" in differ.stdout


def test_fresh_computes_again(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    file, out = claims_file(GOOD), tmp_path / "out"
    lemmata_("run", str(file), "--out", str(out))
    assert "16 trials computed" in said(lemmata_("run", str(file), "--out", str(out), "--fresh"))
    assert "Nothing to compute" in said(lemmata_("run", str(file), "--out", str(out)))


def test_fresh_reaches_only_what_was_asked_for(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    """One claim computed afresh, or one profile, leaves the other rows done."""
    other = GOOD.replace("mean_is_zero", "mean_again").replace(
        "full=Grid(n=[64], seeds=9)", "full=Grid(n=[64], seeds=10)"
    )
    run = ["run", str(claims_file(GOOD + other)), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert "32 trials computed" in said(lemmata_(*run))
    assert "6 trials computed" in said(lemmata_(*run, "--profile", "full"))
    assert "16 trials computed" in said(lemmata_(*run, "--fresh", "--claim", "mean_again"))
    assert "Nothing to compute" in said(lemmata_(*run))
    assert "Nothing to compute" in said(lemmata_(*run, "--profile", "full"))


def test_two_claims_of_one_name_are_refused(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    one, two, out = str(claims_file(GOOD)), str(claims_file(GOOD, "other")), str(tmp_path / "out")
    together = lemmata_("run", one, two, "--out", out)
    assert together.returncode == 2
    assert "'mean_is_zero'" in said(together)
    assert lemmata_("run", one, "--out", out, "--workers", "1").returncode == 0
    after = lemmata_("run", two, "--out", out)
    assert after.returncode == 2
    assert "--out" in said(after)


@pytest.mark.parametrize("body", ["import no_such_module", "def f(:", "raise SystemExit(0)", "undefined_name"])
def test_a_file_that_cannot_be_imported_is_one_line(claims_file: Callable[..., Path], body: str) -> None:
    done = lemmata_("run", str(claims_file(body)))
    assert done.returncode == 2
    assert "my_claims.py cannot be imported" in said(done)
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_one_line(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = lemmata_("run", str(claims_file(GOOD)), "--out", str(tmp_path / "taken"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_broken_claim_file_is_a_usage_error(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    done = lemmata_("run", str(claims_file(GOOD.replace('controls={"centred draws": dict(shift=2.0)}', "controls={}"))))
    assert done.returncode == 2
    assert "mean_is_zero" in said(done)
    assert "without a control" in said(done)
    assert lemmata_("run", str(tmp_path / "missing.py")).returncode == 2
    assert "no claim" in said(lemmata_("run", str(claims_file("", "empty"))))


def test_examine_a_users_model(tmp_path: Path) -> None:
    (tmp_path / "mymodel.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Linear(3, 1, bias=False), lambda y, t: ((y - t) ** 2).mean(), (torch.eye(3), torch.zeros(3, 1))\n"
        "def wrong():\n"
        "    return 1\n"
    )
    done = lemmata_("examine", "mymodel:build", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    assert "0.666667" in done.stdout  # the Hessian of (1/3)|w|^2 is (2/3) I
    for wrong in ("mymodel:wrong", "mymodel:absent", "nomodule:build", "mymodel"):
        assert lemmata_("examine", wrong, cwd=tmp_path).returncode == 2


def test_every_study_is_listed_and_every_claim_described_once() -> None:
    listed = lemmata_("list").stdout
    assert all(study in listed for study in STUDIES)
    package = Path(lemmata.studies.__file__).parent
    files = {
        f"{path.parent.name}/{path.stem}" for path in package.glob("*/*.py") if "script(__file__)" in path.read_text()
    }
    assert files == set(STUDIES)
    claims = json.loads(lemmata_("list", "--json").stdout)
    ids = [claim["id"] for claim in claims]
    assert len(ids) == len(set(ids)) == sum(len(study.claims) for study in everything())
    assert all(claim["controls"] and claim["source"] and claim["title"] for claim in claims)


def test_a_study_file_runs_as_a_script(tmp_path: Path) -> None:
    file = Path(lemmata.studies.__file__).parent / "foundations" / "cross_entropy.py"
    done = subprocess.run(
        [sys.executable, str(file), "--out", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()
