"""The code hash: what changes it, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import lemmata.studies.code as code
from lemmata.studies import study

BODY = '''
FACTOR = 2
UNUSED = 3

def helper(x):
    """A helper."""
    return FACTOR * x

def other(x):
    return UNUSED * x

@claim(predicts=AtMost({bound}), controls={{"c": dict(shift={shift})}}, **SMALL)
def first(n: int, seed: int, shift: float = 0.0) -> float:
    """{words}"""
    return helper(n) + shift

@claim(predicts=AtMost(9), controls={{"c": dict(shift=99.0)}}, **SMALL)
def second(n: int, seed: int, shift: float = 0.0) -> float:
    """Another."""
    return other(n) + shift
'''
PLAIN = dict(bound=9, shift=99.0, words="Some words.")


def hashes(write: Callable[..., Path], body: str, arm: str = "") -> dict[str, str]:
    study.load.cache_clear()
    code._parsed.cache_clear()
    code._dumped.cache_clear()
    return {claim.id: code.code_hash(claim, arm) for claim in study.load(str(write(body))).claims}


def test_words_predictions_and_neighbours_change_nothing(claims_file: Callable[..., Path]) -> None:
    before = hashes(claims_file, BODY.format(**PLAIN))
    assert hashes(claims_file, BODY.format(**PLAIN | dict(words="Other words.", bound=8))) == before
    assert hashes(claims_file, BODY.format(**PLAIN).replace('"""A helper."""', "# a comment")) == before
    changed = hashes(claims_file, BODY.format(**PLAIN).replace("UNUSED = 3", "UNUSED = 4"))
    assert changed["first"] == before["first"]
    assert changed["second"] != before["second"]


@pytest.mark.parametrize(
    "edit",
    [
        ("FACTOR = 2", "FACTOR = 5"),
        ("return FACTOR * x", "return FACTOR + x"),
        ("helper(n) + shift", "helper(n) - shift"),
    ],
)
def test_everything_that_a_trial_reaches_changes_it(claims_file: Callable[..., Path], edit: tuple[str, str]) -> None:
    text = BODY.format(**PLAIN)
    assert hashes(claims_file, text)["first"] != hashes(claims_file, text.replace(*edit))["first"]


def test_a_control_is_its_keywords(claims_file: Callable[..., Path]) -> None:
    before, after = (hashes(claims_file, BODY.format(**PLAIN | dict(shift=s)), arm="c") for s in (99.0, 98.0))
    assert before["first"] != after["first"]
    assert before["second"] == after["second"]


def test_neighbouring_files_count(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    text = BODY.format(**PLAIN).replace("FACTOR = 2", "from my_factor import FACTOR")
    (tmp_path / "my_factor.py").write_text("FACTOR = 2\n")
    before = hashes(claims_file, text)
    (tmp_path / "my_factor.py").write_text("FACTOR = 3\n")
    assert hashes(claims_file, text)["first"] != before["first"]


def test_the_lab_s_analyzers_count_and_its_engine_does_not() -> None:
    package = Path(code.__file__).parent
    found = code._dependencies(package / "curvature" / "edge_of_stability.py", "lemmata.studies.curvature")
    names = {path.name for path in found}
    assert "hessian.py" in names
    assert not names & {"claim.py", "predictions.py", "verdict.py", "ledger.py", "bibliography.py"}
    assert {package / "data" / name for name in ("images.py", "tensors.py", "_checked.py")} <= found
    assert package / "errors.py" not in found


def test_a_package_that_hands_a_name_on_does_not_count_for_its_others() -> None:
    """One architecture edited recomputes the studies of that one; the whole catalogue depends on every one."""
    package = Path(code.__file__).parent
    one = code._dependencies(package / "invariance" / "translation.py", "lemmata.studies.invariance")
    assert {"cnn.py", "_pieces.py"} <= {path.name for path in one} and "mlp.py" not in {path.name for path in one}
    every = code._dependencies(package / "foundations" / "derivatives.py", "lemmata.studies.foundations")
    assert {"cnn.py", "mlp.py", "__init__.py"} <= {path.name for path in every}


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("if True:\n    FACTOR = 2\n", ("= 2", "= 3")),
        ("with open(os.devnull):\n    FACTOR = 2\n", ("= 2", "= 3")),
        ("TABLE = {}\nTABLE['n'] = 2\nFACTOR = TABLE['n']\n", ("= 2", "= 3")),
        ("TABLE = {}\nTABLE.update(n=2)\nFACTOR = TABLE['n']\n", ("=2", "=3")),
        ("class Box:\n    def get(self, x=2):\n        return x\nFACTOR = Box().get()\n", ("x=2", "x=3")),
    ],
)
def test_whatever_makes_a_reached_name_counts(
    claims_file: Callable[..., Path], text: str, edit: tuple[str, str]
) -> None:
    before, after = (BODY.format(**PLAIN).replace("FACTOR = 2\n", made) for made in (text, text.replace(*edit)))
    assert hashes(claims_file, before)["first"] != hashes(claims_file, after)["first"]
    assert hashes(claims_file, before)["second"] == hashes(claims_file, after)["second"]


def test_packages_beside_the_file_count(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    text = BODY.format(**PLAIN).replace("FACTOR = 2", "from my_parts.factor import FACTOR")
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "my_parts" / "factor.py").write_text("from .deep import FACTOR\n")
    (tmp_path / "my_parts" / "deep.py").write_text("FACTOR = 2\n")
    before = hashes(claims_file, text)
    (tmp_path / "my_parts" / "deep.py").write_text("FACTOR = 3\n")
    assert hashes(claims_file, text)["first"] != before["first"]


WITH_FUNCTION = """
def bent(x):
    return 9 * x

@claim(predicts=AtMost(9), controls={"c": dict(f=bent)}, **SMALL)
def third(n: int, seed: int, f=None) -> float:
    \"\"\"A control that passes a function.\"\"\"
    return f(n) if f else n
"""


def test_a_control_s_function_counts_by_its_code_not_its_address(claims_file: Callable[..., Path]) -> None:
    before = hashes(claims_file, WITH_FUNCTION, arm="c")
    assert hashes(claims_file, WITH_FUNCTION, arm="c") == before  # loaded again: another function object
    assert hashes(claims_file, WITH_FUNCTION.replace("9 * x", "8 * x"), arm="c") != before
    assert hashes(claims_file, WITH_FUNCTION.replace("9 * x", "8 * x")) == hashes(claims_file, WITH_FUNCTION)


FACTORY = """
def make(factor):
    @claim(predicts=AtMost(9), controls={"c": dict(shift=9.0)}, **SMALL)
    def made(n: int, seed: int, shift: float = 0.0) -> float:
        \"\"\"A trial made by a function.\"\"\"
        return factor * n + shift
    return made

made_twice = make(2)
"""


def test_a_trial_made_by_a_function_depends_on_its_whole_file(claims_file: Callable[..., Path]) -> None:
    before = hashes(claims_file, FACTORY)
    assert hashes(claims_file, FACTORY.replace("make(2)", "make(3)")) != before


def test_a_decorated_trial_is_found_in_its_own_file(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "my_wrapper.py").write_text(
        "import functools\ndef same(f):\n    @functools.wraps(f)\n    def call(**k):\n        return f(**k)\n    return call\n"
    )
    text = "from my_wrapper import same\n" + BODY.format(**PLAIN).replace("\ndef first", "\n@same\ndef first")
    before = hashes(claims_file, text)
    assert hashes(claims_file, text.replace("FACTOR = 2", "FACTOR = 3"))["first"] != before["first"]
    assert {Path(made.origin).name for made in study.load(str(claims_file(text))).claims} == {"my_claims.py"}
