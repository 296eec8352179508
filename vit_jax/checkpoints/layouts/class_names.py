"""What a config.json says that the classes are called: Hugging Face's and timm's."""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

_GENERIC = re.compile(r"LABEL_\d+")  # what transformers writes where nobody gave names


def told(config: Mapping[str, Any], number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of so many classes, () where none are told, and what is wrong with others.

    timm's `label_names` are names, and its `label_descriptions` explain them: those are taken only
    where there are no names. Names of more or fewer classes than the head has, as in a copied
    file, are of another head: none is used then.
    """
    if not number:
        return (), ()
    notes = []
    for what, found in _sources(config):
        names, problem = _of_classes(found, number)
        if problem:
            notes.append(f"the class names are not used: config.json's {what} {problem}")
        if names:
            if twice := [n for n, times in collections.Counter(names).items() if times > 1]:
                shown = ", ".join(map(repr, twice[:3]))
                notes.append(f"config.json's {what} calls more than one class {shown}")
            return names, tuple(notes)
    return (), tuple(notes)


def _sources(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Where names may be, best first, with what they are called there."""
    timm = config.get("pretrained_cfg") or {}
    sources = [
        ("label_names", config.get("label_names")),
        ("pretrained_cfg label_names", timm.get("label_names")),
        ("id2label", config.get("id2label")),
        ("label_descriptions", _values(config.get("label_descriptions"))),
        ("pretrained_cfg label_descriptions", _values(timm.get("label_descriptions"))),
    ]
    return [(what, found) for what, found in sources if found]


def _values(descriptions: Any) -> Any:
    """What classes are described as, in the order of the file unless its keys are numbers."""
    if not isinstance(descriptions, Mapping) or all(_index(k) is not None for k in descriptions):
        return descriptions
    return list(descriptions.values())


def _of_classes(found: Any, number: int) -> tuple[tuple[str, ...], str]:
    """Names by class, or () and what is wrong, "" where they only say that there are no names."""
    if isinstance(found, Mapping):
        numbered = {_index(key): name for key, name in found.items()}
        if None in numbered or len(numbered) != len(found):
            return (), "has keys that are no numbers of classes, or has one twice"
    elif isinstance(found, Sequence) and not isinstance(found, str):
        numbered = dict(enumerate(found))
    else:
        return (), f"is {type(found).__name__}, not a list of names"
    names = list(numbered.values())
    if all(isinstance(name, str) and _GENERIC.fullmatch(name) for name in names):
        return (), ""
    if len(numbered) != number:
        return (), f"names {len(numbered)} classes and the head has {number}"
    if missing := [i for i in range(number) if i not in numbered]:
        return (), f"lacks class {missing[0]}"
    if not all(type(name) in (str, int) and str(name).strip() for name in names):
        return (), "has a name that is no text"
    return tuple(str(numbered[i]) for i in range(number)), ""


def _index(key: Any) -> int | None:
    """The number of a class that a key of JSON is, None where it is none."""
    return int(key) if isinstance(key, str) and re.fullmatch(r"[0-9]{1,9}", key) else None
