"""Errors of the claim engine. Each message says what was expected, what was given and what to do."""

from __future__ import annotations


class StudyError(Exception):
    """Base of everything the claim engine refuses."""


class ClaimError(StudyError, ValueError):
    """A claim that cannot be made or judged as written."""


class UnknownName(StudyError, LookupError):
    """No such study or claim."""


class LedgerBusy(StudyError, RuntimeError):
    """Another run holds the folder."""


class LedgerFull(StudyError, OSError):
    """The disk cannot take another row; what was finished is kept."""
