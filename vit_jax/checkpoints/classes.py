"""Which class of one model or data set is which of another: by name, where both have names."""

import collections
import dataclasses
from typing import Literal

from vit_jax.text import few

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """How the classes of `theirs` are found among `ours`; both are told to `match`."""

    kind: Literal["same", "reordered", "by_number", "other"]
    rows: tuple[int, ...] = ()  # "reordered": for each of our classes, its number on their side
    note: str = ""  # what the user should know, in words; "" where nothing was assumed

    @property
    def kept(self) -> bool:
        """Whether every class of ours is one of theirs, so that a head can be kept."""
        return self.kind != "other"


def match(theirs: Names, ours: Names, *, their_count: int, our_count: int) -> Match:
    """Matches names, or numbers where a side has no names; `()` is no names.

    Names that differ in case or in spaces around them are the same name where that leaves no
    doubt. Sets of names that are not equal are other classes, however many they share.
    """
    if their_count != our_count:
        return Match(kind="other", note=f"{their_count} classes there, {our_count} here")
    if theirs == ours and ours:
        return Match(kind="same")
    if not theirs or not ours:
        return Match(kind="by_number", note=_unnamed(theirs, ours, our_count))
    for spelling, said in ((list, ""), (_folded, " (but for case and spaces)")):
        left, right = spelling(theirs), spelling(ours)
        if left == right:
            return Match(kind="same", note=f"the class names are equal{said}" if said else "")
        if len(set(left)) == len(left) and set(left) == set(right):
            return Match(
                kind="reordered",
                rows=tuple(left.index(name) for name in right),
                note=f"the same class names{said} in another order: {few(theirs)} there,"
                f" {few(ours)} here",
            )
    return Match(kind="other", note=_difference(theirs, ours))


def said(names: Names, count: int = 0) -> str:
    """Classes in a message: the first of their names, or how many they are."""
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
    """Why two lists of as many names are not the same classes."""
    only_there = [name for name in theirs if name not in ours]
    only_here = [name for name in ours if name not in theirs]
    if only_there or only_here:
        parts = ((only_there, "there"), (only_here, "here"))
        return "; ".join(f"{few(names)} only {where}" for names, where in parts if names)
    twice = [name for name, number in collections.Counter(theirs).items() if number > 1]
    return f"the name {few(twice)} stands for several classes, so that their order is not known"
