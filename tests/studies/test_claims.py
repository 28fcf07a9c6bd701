"""Claims that cannot be made, verdicts in their order, and trials that fail."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lemmata.studies.claim import AtMost, Claim, Distributed, Equals, Grid, claim, trial_seed
from lemmata.studies.errors import ClaimError
from lemmata.studies.rows import Row
from lemmata.studies.verdict import judge

GOOD: dict[str, Any] = dict(
    source="zaslavsky1975facing",
    predicts=Equals(0, within=0.5),
    quick=Grid(n=[64], seeds=8),
    full=Grid(n=[64, 128], seeds=9),
    controls={"centred draws": dict(shift=2.0)},
)


def mean_is_zero(n: int, seed: int, shift: float = 0.0) -> float:
    """The mean of centred draws is near zero.

    For iid $x_i$, $EE overline(x) = 0$.
    """
    return float(np.random.default_rng(seed).normal(size=n).mean() + shift)


def make(**changes: Any) -> Claim:
    return claim(**GOOD | changes)(mean_is_zero)


def test_a_claim_runs_in_a_notebook() -> None:
    result = make().run("quick")
    assert result.verdict.name == "SUPPORTED"
    assert "mean_is_zero · SUPPORTED" in str(result)
    assert result.verdict.controls["centred draws"].outcome == "fails"
    assert len(result.rows) == 2 * 8
    assert make()(n=4, seed=0) == mean_is_zero(n=4, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(controls={}), "mean_is_zero.*without a control"),
        (dict(controls={"c": dict(nothing=1)}), "mean_is_zero.*'c'.*'nothing'"),
        (dict(controls={"c": dict(shift=0.0)}), "mean_is_zero.*'c'.*default"),
        (dict(controls={"c": dict(seed=3)}), "mean_is_zero.*'c'.*'seed'"),
        (dict(source="nobody2099"), r"mean_is_zero.*'nobody2099'.*references\.bib"),
        (dict(quick=Grid(n=[], seeds=8)), "mean_is_zero.*quick grid is empty.*'n'"),
        (dict(full=Grid(n=[1], seeds=0)), "mean_is_zero.*full grid is empty.*seeds=0"),
        (dict(quick=Grid(width=[1], seeds=8)), "mean_is_zero.*'width'"),
        (dict(quick=Grid(n=[64], seeds=4)), "mean_is_zero.*at least 5 seeds"),
        (dict(switch="padding"), "mean_is_zero.*'padding'"),
        (dict(expects="VERIFIED"), "mean_is_zero.*VERIFIED.*SUPPORTED"),
        (dict(predicts=Equals("2**q", within=0.1)), r"mean_is_zero.*2\*\*q"),
        (dict(predicts=Distributed("stats.nrm()", within=0.1)), r"mean_is_zero.*stats\.nrm"),
        (dict(quick=Grid(seeds=8)), "mean_is_zero.*needs 'n'.*quick grid"),
        (dict(quick=Grid(n=[64], seed=[1], seeds=8)), "mean_is_zero.*'seed'"),
        (dict(timeout=0), "mean_is_zero.*timeout=0"),
        (dict(controls={"c": dict(shift=lambda: 1)}), "mean_is_zero.*'c'.*top level"),
    ],
)
def test_what_cannot_be_a_claim(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClaimError, match=message):
        make(**changes)


@pytest.mark.parametrize("values", ["relu", 3, [1, 1], [float("nan")], [np.ones(2)], [{1}]])
def test_what_cannot_be_a_coordinate(values: Any) -> None:
    with pytest.raises(ClaimError, match="'n'"):
        Grid(n=values, seeds=5)


def test_numpy_s_numbers_are_numbers() -> None:
    assert Grid(n=2 ** np.arange(3), seeds=5) == Grid(n=[1, 2, 4], seeds=5)


def test_a_claim_without_words_cannot_be_made() -> None:
    def silent(n: int, seed: int, shift: float = 0.0) -> float:
        return 0.0

    with pytest.raises(ClaimError, match="silent.*docstring"):
        claim(**GOOD)(silent)


@pytest.mark.parametrize(
    "bad",
    [
        "float('nan')",
        "float('inf')",
        "'text'",
        "np.ones(3)",
        "{'other': 1.0}",
        "1 / 0",
        "sys.exit(0)",
        r"1 / len(open('\udc80').read())",
        "{'value': 1.0, 'big': np.broadcast_to(0.0, 2 * 10**8)}",
    ],
)
def test_a_bad_return_is_a_failed_row_that_names_claim_and_point(bad: str) -> None:
    def broken(n: int, seed: int, shift: float = 0.0) -> Any:
        """Returns something that cannot be judged."""
        return eval(bad, {"np": np, "sys": sys}) if shift == 0.0 and n == 64 else 9.0

    result = claim(**GOOD)(broken).run("quick")
    assert result.verdict.name == "INCONCLUSIVE"
    assert result.verdict.failed[0].startswith('broken at {"n":64} seed 0: ')
    assert len(result.verdict.failed) == 8


def toy(kind: float, seed: int, control: str = "") -> float:
    """A toy whose arms give what they are told."""
    noise = np.random.default_rng(seed).normal()
    return {"": kind, "good": 0.0, "bad": 9.0, "wide": 9.0 * noise}[control] + 0.001 * noise


def verdict(kinds: list[float], control: str, **more: Any) -> str:
    grid = Grid(kind=kinds, seeds=6)
    settings = dict(source="zaslavsky1975facing", predicts=Equals(0, within=1), quick=grid, full=grid)
    return claim(**settings, controls={"c": dict(control=control)}, **more)(toy).run("quick").verdict.name


def test_verdicts_in_the_stated_order() -> None:
    assert verdict([0.0], "bad") == "SUPPORTED"
    assert verdict([5.0], "bad") == "REFUTED"
    assert verdict([1.0], "bad") == "INCONCLUSIVE"
    assert verdict([0.0], "wide") == "INCONCLUSIVE"
    assert verdict([0.0], "good") == "INVALID"
    assert verdict([5.0], "good") == "INVALID"  # a test without power refutes nothing either
    assert verdict([0.0, 5.0], "bad") == "REFUTED"


def test_depends_only_over_a_declared_switch() -> None:
    assert verdict([0.0, 5.0], "bad", switch="kind") == "DEPENDS"
    assert verdict([0.0, 5.0], "good", switch="kind") == "INVALID"
    assert verdict([0.0, 1.0], "bad", switch="kind") == "INCONCLUSIVE"
    assert verdict([5.0, 6.0], "bad", switch="kind") == "REFUTED"
    assert verdict([0.0, 0.5], "bad", switch="kind") == "SUPPORTED"


def test_a_switch_is_judged_on_simultaneous_intervals() -> None:
    """Each value alone would be decided at 95 %; the two together are not."""
    grid = Grid(kind=[0.0, 5.0], seeds=6)
    made = claim(
        source="zaslavsky1975facing",
        predicts=Equals(0, within=1),
        quick=grid,
        full=grid,
        controls={"c": dict(control="bad")},
        switch="kind",
    )(toy)
    noise = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    half = stats.t.ppf(0.9813, 5) * noise.std(ddof=1) / np.sqrt(6)  # between the 95 % and the 97.5 % interval
    values = {("", 0.0): noise / half, ("", 5.0): 5 + noise / half, ("c", 0.0): 9 + noise, ("c", 5.0): 9 + noise}
    rows = [Row("toy", a, {"kind": p}, k, {"value": v}) for (a, p), some in values.items() for k, v in enumerate(some)]
    assert judge(made, rows, "quick").name == "INCONCLUSIVE"


def test_one_failed_trial_is_enough_to_doubt() -> None:
    def fragile(kind: float, seed: int, control: str = "") -> float:
        """Fails for one seed of the control."""
        if control and seed == trial_seed("fragile", '{"kind":0.0}', 3):
            raise RuntimeError("out of luck")
        return 9.0 if control else 0.0

    grid = Grid(kind=[0.0], seeds=6)
    made = claim(
        source="zaslavsky1975facing", predicts=AtMost(1), quick=grid, full=grid, controls={"c": dict(control="bad")}
    )(fragile)
    result = made.run("quick")
    assert result.verdict.name == "INCONCLUSIVE"
    assert "out of luck" in result.verdict.failed[0]


def test_seeds_depend_on_the_name_alone_and_arms_share_them() -> None:
    made = make()
    assert {t.seed for t in made.tasks("quick") if not t.arm} == {t.seed for t in made.tasks("quick") if t.arm}
    assert {t.seed for t in made.tasks("quick")} < {t.seed for t in made.tasks("full")}
    assert not {t.seed for t in made.tasks("quick")} & {t.seed for t in made.tasks("quick", salt="again")}
    assert trial_seed("c", '{"n":64}', 0) == 7925701216084465272  # pinned: a change would orphan every ledger
