"""JSON from anybody: damaged, deep and repeated content ends in one line that says so."""

import json
from typing import Any

MAX_DEPTH = 100  # of what we and the peers write, the deepest has 8


def loads(text: str, *, unique_keys: bool = False) -> Any:
    """The content of a JSON text. Raises ValueError, of one line, where it is damaged or deep.

    With `unique_keys` also where an object has a key twice, of which Python would keep the last.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    _check_depth(content)
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return found


def _check_depth(content: Any) -> None:
    """Without recursion, and so that showing any part of the content needs little of it."""
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
