"""The classes of ImageNet-1k, which the files of released models do not name."""

import functools
import importlib.resources

from vit_jax.models.zoo import Model

Names = tuple[str, ...]

FILE = "imagenet1k.txt"
COUNT = 1000


@functools.cache
def _lines() -> tuple[tuple[str, Names], ...]:
    """The synset and the words of each class, in the order of their numbers."""
    text = (importlib.resources.files(__package__) / FILE).read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return tuple((synset, tuple(words.split(", "))) for synset, words in pairs)


def synsets() -> Names:
    """The WordNet synsets of the 1000 classes, such as n01440764; they ascend."""
    return tuple(synset for synset, _ in _lines())


def words() -> tuple[Names, ...]:
    """The words of each of the 1000 classes. Some classes share words, but not their first word."""
    return tuple(of_class for _, of_class in _lines())


def names() -> Names:
    """A name for each of the 1000 classes, such as tench; no name is used twice."""
    return tuple(of_class[0] for of_class in words())


def class_names(model: Model) -> Names:
    """What to call the classes of a model, by the numbers of its logits; () without a head.

    Its own names, or else its numbers. A model of 1000 classes without names, or with the synsets
    of ImageNet-1k as names, is assumed to be one of ImageNet-1k, as released models are.
    """
    return shown(tuple(model.class_names), count=model.options.num_classes)


def shown(own: Names, *, count: int) -> Names:
    """What to call `count` classes with these names, or with none: see `class_names`."""
    if own == synsets() or (not own and count == COUNT):
        return names()
    return own or tuple(map(str, range(count)))
