"""Reads the class names from a config.json of Hugging Face or timm."""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

_GENERIC = re.compile(r"LABEL_\d+")  # transformers' default names


def read(config: Mapping[str, Any], number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of `number` classes, () where there are none; and notes on unusable names.

    timm's `label_descriptions` explain its `label_names`, so they are used only where there are no
    names. Names for another number of classes, as in a copied file, are not used.
    """
    if not number:
        return (), ()
    notes = []
    for what, found in _sources(config):
        names, problem = _by_class(found, number)
        if problem:
            notes.append(f"the class names are not used: config.json's {what} {problem}")
        if names:
            if twice := [n for n, times in collections.Counter(names).items() if times > 1]:
                shown = ", ".join(map(repr, twice[:3]))
                notes.append(f"config.json's {what} has several classes named {shown}")
            return names, tuple(notes)
    return (), tuple(notes)


def _sources(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(field of config.json, its value) where names may be, the preferred field first."""
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
    """Descriptions as a list in the file's order, unchanged if the keys are class numbers."""
    if not isinstance(descriptions, Mapping) or all(_index(k) is not None for k in descriptions):
        return descriptions
    return list(descriptions.values())


def _by_class(found: Any, number: int) -> tuple[tuple[str, ...], str]:
    """Names in the order of classes and ""; or () and the problem, "" for default names."""
    if isinstance(found, Mapping):
        numbered = {_index(key): name for key, name in found.items()}
        if None in numbered or len(numbered) != len(found):
            return (), "has keys that are not class numbers, or has a number twice"
    elif isinstance(found, Sequence) and not isinstance(found, str):
        numbered = dict(enumerate(found))
    else:
        return (), f"is {type(found).__name__}, not a list of names"
    names = list(numbered.values())
    if all(isinstance(name, str) and _GENERIC.fullmatch(name) for name in names):
        return (), ""
    if len(numbered) != number:
        return (), f"names {len(numbered)} classes, but the head has {number}"
    if missing := [i for i in range(number) if i not in numbered]:
        return (), f"lacks class {missing[0]}"
    if not all(type(name) in (str, int) and str(name).strip() for name in names):
        return (), "has a name that is not text"
    return tuple(str(numbered[i]) for i in range(number)), ""


def _index(key: Any) -> int | None:
    """A JSON key as a class number; None where it is not one."""
    return int(key) if isinstance(key, str) and re.fullmatch(r"[0-9]{1,9}", key) else None
