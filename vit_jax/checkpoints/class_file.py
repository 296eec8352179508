"""Reads a file that names the classes of a model: lines, or JSON."""

import pathlib
import re
from typing import Any

from vit_jax import plain_json
from vit_jax.checkpoints.class_lookup import Names

FORMS = "a name on each line, a JSON list of names, or a JSON object of numbers and names"


def read(path: pathlib.Path, *, count: int) -> tuple[Names, ...]:
    """The names of each of `count` classes, in the order of their numbers.

    An object maps numbers to names or names to numbers. A class may have a list of names. Raises
    ValueError in one line if the file does not name each class.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"cannot read the names of the classes, {path}: {reason}") from error
    try:
        names = tuple(map(_names, _by_number(text)))
    except ValueError as error:
        raise ValueError(f"{path} does not name the classes ({FORMS}): {error}") from error
    if len(names) != count:
        raise ValueError(f"{path} names {len(names)} classes, but the model has {count}")
    return names


def _by_number(text: str) -> list[Any]:
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    content = plain_json.loads(text, unique_keys=True)
    if isinstance(content, list):
        return content
    if content and all(type(value) is int for value in content.values()):
        numbered = {number: name for name, number in content.items()}
    else:
        numbered = {_number(key): value for key, value in content.items()}
    if len(numbered) < len(content) or sorted(numbered) != list(range(len(content))):
        raise ValueError(f"its numbers are not 0 to {len(content) - 1}, each once")
    return [numbered[number] for number in range(len(content))]


def _number(key: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", key):
        raise ValueError(f"{key!r} is not the number of a class")
    return int(key)


def _names(value: Any) -> Names:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{value!r} is not a name or a list of names")
    return tuple(name.strip() for name in names)
