"""The base error: its message and its passage between processes."""

from __future__ import annotations

import pickle

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError


def test_message_has_the_four_parts_and_survives_pickling() -> None:
    error = ArgumentError("tol", "a positive number", "-1", "Pass tol=1e-3.")
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) == "tol: expected a positive number, given -1. Pass tol=1e-3."
    assert (back.name, back.remedy) == ("tol", "Pass tol=1e-3.")
    assert isinstance(back, la.LemmataError) and isinstance(back, ValueError)
