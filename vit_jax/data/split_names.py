"""Common names of splits, by which folders and datasets are recognised."""

import re
from collections.abc import Iterable

# The kinds of splits, and the names of each kind, in order of preference.
KINDS = {
    "train": ("train", "training", "trn"),
    "validation": (
        *("validation", "val", "valid", "validate", "dev", "devel", "development"),
        *("eval", "evaluation", "holdout", "heldout"),
    ),
    "test": ("test", "testing", "tst"),
}
_KIND = {name: kind for kind, names in KINDS.items() for name in names}
_ADDITION = re.compile(r"[-_ .]|(set|data|images|split)$")


def kind(name: str) -> str:
    """`train`, `validation` or `test`; "" for any other name.

    Case and common additions are ignored: `Train`, `test_set`, `val-images`.
    """
    return _KIND.get(_plain(name), "")


def preferred(names: Iterable[str], wanted: str) -> list[str]:
    """The names of the kind `wanted`, the plainest first."""
    found = [name for name in names if kind(name) == wanted]
    order = KINDS[wanted]
    return sorted(found, key=lambda name: (order.index(_plain(name)), name.lower() != name, name))


def held_out(names: Iterable[str]) -> list[str]:
    """The names of splits to evaluate on, in order of preference: validation before test."""
    names = tuple(names)
    return [*preferred(names, "validation"), *preferred(names, "test")]


def _plain(name: str) -> str:
    plain = name.lower()
    while (shorter := _ADDITION.sub("", plain)) != plain:
        plain = shorter
    return plain
