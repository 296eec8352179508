"""What splits of a dataset are called: the table that folders and datasets are matched with."""

import re
from collections.abc import Iterable

# In order of preference, the kinds as well as the names of each.
KINDS = {
    "train": ("train", "training", "trn"),
    "validation": (
        *("validation", "val", "valid", "validate", "dev", "devel", "development"),
        *("eval", "evaluation", "holdout", "heldout"),
    ),
    "test": ("test", "testing", "tst"),
}
_KIND = {name: kind for kind, names in KINDS.items() for name in names}
_FILLING = re.compile(r"[-_ .]|(set|data|images|split)$")


def kind(name: str) -> str:
    """`train`, `validation` or `test`; "" for a name that is none of them.

    In any case, and with what people add: `Train`, `test_set`, `val-images`.
    """
    return _KIND.get(_plain(name), "")


def preferred(names: Iterable[str], wanted: str) -> list[str]:
    """Those of `names` that are of the kind `wanted`, the plainest first."""
    found = [name for name in names if kind(name) == wanted]
    order = KINDS[wanted]
    return sorted(found, key=lambda name: (order.index(_plain(name)), name.lower() != name, name))


def held_out(names: Iterable[str]) -> list[str]:
    """Those of `names` to evaluate on, the best first: validation before test."""
    names = tuple(names)
    return [*preferred(names, "validation"), *preferred(names, "test")]


def _plain(name: str) -> str:
    plain = name.lower()
    while (shorter := _FILLING.sub("", plain)) != plain:
        plain = shorter
    return plain
