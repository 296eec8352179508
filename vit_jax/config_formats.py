"""Configs of earlier versions: fields that were called otherwise, and the files of runs."""

import copy
from collections.abc import Mapping
from typing import Any

from vit_jax.schema.forms import fields, is_group

# Of config.json. Those of format 0 hold no number, but every field of every choice.
FORMAT = 1

MOVED = {
    "objective.loss": "objective.cross_entropy",
    "schedule.end": "schedule.end_value",
    "data.kernel": "data.interpolation",
    "data.eval_kernel": "data.eval_interpolation",
    "data.eval_crop": "data.crop_pct",
}


def with_new_names(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values under the names of today, and a line for each that had another one."""
    found: dict[str, Any] = copy.deepcopy(dict(values))
    notes = []
    for old, new in MOVED.items():
        *where, name = old.split(".")
        group = _group(found, where)
        if group is not None and name in group:
            value = group.pop(name)
            *place, new_name = new.split(".")
            target = found
            for part in place:
                target = target.setdefault(part, {})
            target[new_name] = value
            notes.append(renamed(old))
    return found, notes


def new_path(path: str) -> str:
    """The path of a field today, of one that had another name."""
    return MOVED.get(path, path)


def renamed(path: str) -> str:
    return f"config.{path} is called config.{MOVED[path]} now"


def of_file(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says, of any format. Raises ValueError for one of a later version."""
    values = dict(values)
    number = values.pop("format", 0)
    if type(number) is not int or number > FORMAT:
        raise ValueError(
            f"its format is {number!r}, and this version of vit_jax knows those up to {FORMAT}:"
            " use the version that wrote it, or a later one"
        )
    if number == 0:
        values, _ = with_new_names(values)
        values = _taken(kind, values)
    return values


def _taken(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Without the fields of choices that were not taken, which had no meaning."""
    found = dict(values)
    for name, field in fields(kind).items():
        if choice := field.beside:
            chosen = choice.table.get(values.get(choice.key, choice.default))
            for key in choice.fields() - (set(fields(chosen)) if chosen else choice.fields()):
                found.pop(key, None)
        elif not field.form and is_group(field.kind) and isinstance(found.get(name), Mapping):
            found[name] = _taken(field.kind, found[name])
    return found


def _group(values: Any, path: list[str]) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, dict) else None
