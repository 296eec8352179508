"""Reads untrusted JSON: damaged, deeply nested or repeated content is an error of one line."""

import json
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100  # files that this package and its peers write have at most 8 levels


def loads(
    text: str, *, unique_keys: bool = False, integer: Callable[[str], Any] | None = None
) -> Any:
    """The content of a JSON text. Raises ValueError of one line if it is damaged or too deep.

    With `unique_keys` a key that an object has twice is an error too; Python keeps the last one.
    `integer` makes a value of the digits of an integer.
    """
    try:
        pairs_hook = _unique if unique_keys else None
        content = json.loads(text, object_pairs_hook=pairs_hook, parse_int=integer or _integer)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    _check_depth(content)
    return content


def short_integer(text: str) -> int | None:
    """The integer of these digits; None if there are more than 18: no count of a run has them."""
    return int(text) if len(text) < 19 else None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python reads at most 4300 digits
        raise ValueError(f"it has a number of {len(text)} digits") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return found


def _check_depth(content: Any) -> None:
    """Raises ValueError for more than MAX_DEPTH levels. It does not recurse."""
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError("it is nested too deep")
