"""Makes untrusted text, such as names of files and classes, safe to print.

Terminals obey escape sequences, browsers obey HTML, and invalid text cannot be encoded. All of them
are escaped in printed text, but kept in stored text.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji need them
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")


def printable(text: object) -> str:
    """`str(text)` in one line without control characters, escape sequences and HTML tags.

    They become backslash escapes: `\\n`, `\\x1b`, `\\u202e` (which reverses the text after it),
    `\\x3c` for the `<` of a tag, and `\\udc80` for a byte of a file name that is not UTF-8.
    """
    return _TAG.sub(r"\\x3c", "".join(map(_escaped, str(text))))


def printable_json(value: Any) -> str:
    """JSON in ASCII, in one line, without HTML tags; it reads back equal."""
    return json.dumps(value).replace("<", r"\u003c")


def few(values: Iterable[object], most: int = 3) -> str:
    """The first `most` values of a list, for a message: `a, b, c, ...`."""
    values = tuple(values)
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def shortened(text: str) -> str:
    """A text for a message, cut to 80 characters."""
    return text if len(text) <= 80 else text[:80] + "..."


def _escaped(char: str) -> str:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) in ("Zs", "Co"):
        return char
    return char.encode("unicode_escape").decode("ascii")
