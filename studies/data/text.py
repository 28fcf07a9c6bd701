"""English prose kept beside the studies: the topics of Python's own help, as character codes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ._checked import DataError, check, integers

FILE = Path(__file__).parent.parent / "texts" / "python_topics.txt"
SHA256 = "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4"

#: Where validation and test begin, in hundredths of the text.
VALID_FROM, TEST_FROM = 90, 95


class Text(NamedTuple):
    """A text as character codes, cut into three consecutive parts.

    Attributes
    ----------
    train, valid, test : integers below ``len(alphabet)``, in the order of the text.
    alphabet : the characters, sorted: code ``k`` stands for ``alphabet[k]``.

    >>> Text._fields
    ('train', 'valid', 'test', 'alphabet')

    """

    train: Tensor
    valid: Tensor
    test: Tensor
    alphabet: str


def english() -> Text:
    """The help topics of CPython 3.11: 465 thousand characters of technical English with some code.

    The first 90 % are for training, the next 5 % for validation, the last 5 % for testing.

    Returns
    -------
    A `Text`; its integers are on torch's default device.

    Raises
    ------
    DataError : the file is missing or was edited.

    Licence: Python Software Foundation License 2, beside the text in ``LICENSE-PSF.txt``. Source: python2023topics.

    >>> text = english()
    >>> "".join(text.alphabet[code] for code in text.train[:24])
    'The "assert" statement\\n*'
    >>> len(text.train), len(text.valid), len(text.test), len(text.alphabet)
    (418543, 23252, 23253, 103)

    """
    whole = _whole()
    alphabet = "".join(sorted(set(whole)))
    code = {character: number for number, character in enumerate(alphabet)}
    codes = integers([code[character] for character in whole])
    valid, test = (len(whole) * share // 100 for share in (VALID_FROM, TEST_FROM))
    return Text(codes[:valid], codes[valid:test], codes[test:], alphabet)


@cache
def _whole() -> str:
    try:
        content = FILE.read_bytes()
    except OSError as error:
        raise DataError(f"the text {FILE} cannot be read ({error.strerror}): install lemmata again.") from error
    check("english", hashlib.sha256(content).hexdigest(), SHA256)
    return content.decode("utf-8")
