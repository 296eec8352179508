"""Matches the classes of two models or data sets: by name, where both have class names."""

import collections
import dataclasses
from typing import Literal

from vit_jax.text import few

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """The result of `match(theirs, ours)`."""

    kind: Literal["same", "reordered", "by_number", "other"]
    rows: tuple[int, ...] = ()  # "reordered": for each class of `ours`, its number in `theirs`
    note: str = ""  # a message for the user; "" where nothing was assumed

    @property
    def kept(self) -> bool:
        """Whether both sides have the same classes, so that a head can be kept."""
        return self.kind != "other"


def match(theirs: Names, ours: Names, *, their_count: int, our_count: int) -> Match:
    """Matches class names, or class numbers where a side has no names (`()`).

    Names that differ only in case or in spaces around them are equal where that is unambiguous.
    Two sets of names that are not equal are different classes, even if most names agree.
    """
    if their_count != our_count:
        return Match(kind="other", note=f"{their_count} classes there, {our_count} here")
    if theirs == ours and ours:
        return Match(kind="same")
    if not theirs or not ours:
        if rows := _rows_of_numbers(theirs, ours, our_count):
            note = f"classes named by numbers ({few(theirs or ours)}) are matched by these numbers"
            return Match(kind="reordered", rows=rows, note=note)
        return Match(kind="by_number", note=_unnamed(theirs, ours, our_count))
    for spelling, remark in ((list, ""), (_folded, " (ignoring case and spaces)")):
        left, right = spelling(theirs), spelling(ours)
        if left == right:
            return Match(kind="same", note=f"the class names are equal{remark}" if remark else "")
        if len(set(left)) == len(left) and set(left) == set(right):
            return Match(
                kind="reordered",
                rows=tuple(left.index(name) for name in right),
                note=f"the same class names{remark} in another order: {few(theirs)} there,"
                f" {few(ours)} here",
            )
    return Match(kind="other", note=_difference(theirs, ours))


def _rows_of_numbers(theirs: Names, ours: Names, count: int) -> tuple[int, ...]:
    """`Match.rows` if the only names are the numbers of all classes, in another order; else ()."""
    names = theirs or ours
    if not all(name.isascii() and name.isdecimal() for name in names):
        return ()
    numbers = [int(name) for name in names]
    if sorted(numbers) != list(range(count)) or numbers == sorted(numbers):
        return ()
    return tuple(numbers) if ours else tuple(map(numbers.index, range(count)))


def described(names: Names, count: int = 0) -> str:
    """Classes in a message: their number and, if known, the first names."""
    return f"{len(names)} ({few(names)})" if names else f"{count} without names"


def _folded(names: Names) -> list[str]:
    return [name.strip().casefold() for name in names]


def _unnamed(theirs: Names, ours: Names, count: int) -> str:
    if not (theirs or ours):
        return f"its {count} classes have no names: they are matched by number"
    return (
        f"only one side names its {count} classes ({few(theirs or ours)}): they are matched by"
        " number"
    )


def _difference(theirs: Names, ours: Names) -> str:
    """Why two lists of equal length do not name the same classes."""
    only_there = [name for name in theirs if name not in ours]
    only_here = [name for name in ours if name not in theirs]
    if only_there or only_here:
        parts = ((only_there, "there"), (only_here, "here"))
        return "; ".join(f"{few(names)} only {where}" for names, where in parts if names)
    twice = [name for name, number in collections.Counter(theirs).items() if number > 1]
    return f"several classes have the name {few(twice)}, so their order is unknown"
