"""Finds the classes of a model by what people call them: names, numbers, synsets."""

import collections
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from vit_jax.checkpoints import imagenet
from vit_jax.text import few, shortened

Names = tuple[str, ...]
Table = Mapping[str, Sequence[int]]  # from a spelling to the classes that have it

_SYNSET = re.compile(r"(n[0-9]{8})(?![0-9])")  # alone, or before a name: n01440764_tench
_AGREE = 0.9  # share of the names that must be those of ImageNet-1k: libraries changed a few


class Lookup:
    """The classes of a model, by everything that names them."""

    def __init__(self, own: Sequence[Names], *, count: int, numbers: bool = True) -> None:
        """`own`: the names of each of the model's `count` classes, or () if it has no names.

        A model of 1000 classes without names is assumed to be one of ImageNet-1k. Unless `numbers`
        a text of digits is not the number of a class.
        """
        self.count, self._own = count, own
        self.names = imagenet.shown(tuple(map(_shown, own)), count=count)  # to print, by class
        self._tables: list[tuple[Table, Callable[[str], str]]] = [
            (_table(own), str),
            ({str(i): (i,) for i in range(count if numbers else 0)}, _without_zeros),
            (_table(own, _folded), _folded),
        ]
        if count == imagenet.COUNT and (not own or _agrees(own)):
            self._tables += _imagenet_tables()

    def find(self, text: str) -> int:
        """The number of the class that a text names. Raises ValueError if there is not one."""
        ambiguous: Sequence[int] = ()
        for table, spelling in self._tables:
            found = table.get(spelling(text), ())
            if len(found) == 1:
                return found[0]
            ambiguous = ambiguous or found
        if ambiguous:
            meant = " or ".join(f"{self.names[i]} ({i})" for i in ambiguous)
            raise ValueError(f"{_quoted(text)} may be {meant}")
        raise ValueError(f"{_quoted(text)}{self._nearest(text)}")

    def find_all(self, texts: Sequence[str]) -> tuple[int, ...]:
        """The class of each text. Raises ValueError that lists those that name no single class."""
        found, problems = [], []
        for text in texts:
            try:
                found.append(self.find(text))
            except ValueError as error:
                problems.append(str(error))
        if problems:
            unnamed = "" if self.names != _numbers(self.count) else ", which have no names"
            raise ValueError(
                f"{len(problems)} of {len(texts)} names are not of the model's {self.count} classes"
                f"{unnamed}: {few(problems)}"
            )
        if len(set(found)) < len(found):
            number, _ = collections.Counter(found).most_common(1)[0]
            same = [text for text, of in zip(texts, found, strict=True) if of == number]
            raise ValueError(f"{' and '.join(map(_quoted, same))} name the same class, {number}")
        return tuple(found)

    def _nearest(self, text: str) -> str:
        spelled = {_folded(name): name for name in self.names}
        close = difflib.get_close_matches(_folded(text), spelled, n=2, cutoff=0.6)
        return f" (like {' or '.join(_quoted(spelled[name]) for name in close)})" if close else ""


def of_names(names: Names, *, count: int, numbers: bool = True) -> Lookup:
    """The classes of a model with these names, or with none: arguments as those of `Lookup`."""
    return Lookup([(name,) for name in names], count=count, numbers=numbers)


@functools.cache
def _imagenet_tables() -> list[tuple[Table, Callable[[str], str]]]:
    """The classes of ImageNet-1k. A table is before the tables that it contradicts."""
    first = [(name,) for name in imagenet.names()]
    every = [(*words, ", ".join(words)) for words in imagenet.words()]
    return [
        (_table([(synset,) for synset in imagenet.synsets()]), _synset),
        (_table(first), str),
        (_table(every), str),
        (_table(first, _folded), _folded),
        (_table(every, _folded), _folded),
    ]


def _agrees(own: Sequence[Names]) -> bool:
    """Whether these are names of the classes of ImageNet-1k, in the same order."""
    hits = (any(_is_class(name, number) for name in names) for number, names in enumerate(own))
    return sum(hits) >= _AGREE * len(own)


def _is_class(name: str, number: int) -> bool:
    parts = (name, name.partition(", ")[0])
    return any(
        number in table.get(spelling(part), ())
        for table, spelling in _imagenet_tables()
        for part in parts
    )


def _table(names: Sequence[Iterable[str]], spelling: Callable[[str], str] = str) -> Table:
    found: dict[str, list[int]] = collections.defaultdict(list)
    for number, of_class in enumerate(names):
        for spelled in {spelling(name) for name in of_class}:
            found[spelled].append(number)
    return found


def _folded(text: str) -> str:
    """A spelling without case, accidental spaces, and the characters that replace spaces."""
    return " ".join(re.sub(r"[_\-\s]+", " ", text).split()).casefold()


def _without_zeros(text: str) -> str:
    return (text.lstrip("0") or "0") if text.isascii() and text.isdecimal() else text


def _synset(text: str) -> str:
    found = _SYNSET.match(text)
    return found[1] if found else text


def _shown(names: Names) -> str:
    """The name to print: not a synset if there is another."""
    return next((name for name in names if not _SYNSET.fullmatch(name)), names[0])


def _numbers(count: int) -> Names:
    return tuple(map(str, range(count)))


def _quoted(text: str) -> str:
    return shortened(repr(text))
