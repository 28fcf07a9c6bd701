"""Dates as people write them, and as ISO 8601 does: a small translation task made by rule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import NamedTuple

import torch
from torch import Tensor

from ._checked import DataError, integers

MONTHS = "January February March April May June July August September October November December".split()

#: The years drawn from: a hundred, so that two digits say which; "50" is 1950 and "49" is 2049.
FIRST_YEAR, LAST_YEAR = 1950, 2049

#: Ways to write a date. Each determines it: numbers go day, month, year, or in ISO's order without dashes.
FORMATS: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.day} {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{MONTHS[d.month - 1][:3]} {d.day}, {d.year}",
    lambda d: f"{d.day} {MONTHS[d.month - 1][:3]} {d.year % 100:02}",
    lambda d: f"{d.day:02}/{d.month:02}/{d.year % 100:02}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.year}{d.month:02}{d.day:02}",
)

#: Token 0 fills a written date up to its greatest length; token 0 of the ISO side starts a sentence and never occurs in it.
FILL, START = "_", "^"
SOURCE_ALPHABET = FILL + " ,./" + "0123456789" + "".join(sorted(set("".join(MONTHS))))
TARGET_ALPHABET = START + "-0123456789"
SOURCE_LENGTH, TARGET_LENGTH = len("September 30, 2049"), len("2049-09-30")

#: One day in so many is held out.
HELD_OUT_EVERY = 10


class Dates(NamedTuple):
    """Pairs of a written date and its ISO form, as tokens.

    Attributes
    ----------
    source : ``(n, 18)``, tokens of the written dates, filled up with 0.
    target : ``(n, 10)``, tokens of the ISO dates, 1 to 11; 0 is kept for the start of a sentence.
    source_alphabet, target_alphabet : token ``k`` stands for the character ``alphabet[k]``.

    >>> Dates._fields
    ('source', 'target', 'source_alphabet', 'target_alphabet')

    """

    source: Tensor
    target: Tensor
    source_alphabet: str
    target_alphabet: str


def dates(n: int, generator: torch.Generator, *, held_out: bool = False) -> Dates:
    """Draw ``n`` dates from 1950 to 2049, each written in one of seven ways, with their ISO forms.

    Days and ways are uniform and independent. Every tenth day is held out, in all its ways to be written: a held-out
    pair shares no date with a training pair, whatever the seeds. Pairs may repeat.

    Parameters
    ----------
    n : number of pairs, at least 1.
    generator : a CPU generator; the same seed gives the same pairs on every device.
    held_out : draw from the held-out days instead.

    Returns
    -------
    A `Dates`, on torch's default device.

    Raises
    ------
    DataError : ``n`` or the generator is not what it must be.

    Licence: none needed, made here by rule. Source: bahdanau2015neural for the task it stands in for.

    >>> drawn = dates(3, torch.Generator().manual_seed(0))
    >>> ["".join(drawn.target_alphabet[token] for token in row) for row in drawn.target]
    ['1999-12-06', '1998-08-25', '2022-04-19']
    >>> ["".join(drawn.source_alphabet[token] for token in row).rstrip("_") for row in drawn.source]
    ['Dec 6, 1999', 'August 25, 1998', 'Apr 19, 2022']

    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise DataError(f"n={n!r} dates cannot be drawn: ask for an integer of at least 1.")
    if generator.device.type != "cpu":
        raise DataError(
            f"generator lives on {generator.device}: pass torch.Generator().manual_seed(seed), so that a seed means the "
            "same dates on every device."
        )
    first, last = date(FIRST_YEAR, 1, 1).toordinal(), date(LAST_YEAR, 12, 31).toordinal()
    days = [day for day in range(first, last + 1) if (day % HELD_OUT_EVERY == 0) == held_out]
    chosen = torch.randint(len(days), (n,), generator=generator, device="cpu").tolist()
    ways = torch.randint(len(FORMATS), (n,), generator=generator, device="cpu").tolist()
    drawn = [date.fromordinal(days[position]) for position in chosen]
    written = [FORMATS[way](day).ljust(SOURCE_LENGTH, FILL) for way, day in zip(ways, drawn, strict=True)]
    return Dates(
        integers([[SOURCE_ALPHABET.index(character) for character in line] for line in written]),
        integers([[TARGET_ALPHABET.index(character) for character in day.isoformat()] for day in drawn]),
        SOURCE_ALPHABET,
        TARGET_ALPHABET,
    )
