"""Configs of earlier versions: renamed fields, and older formats of config.json."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.models import old_names, zoo
from vit_jax.schema.forms import fields, is_group

# The format of config.json that is written. Format 0 has no number and holds every field of every
# choice; format 1 has the old names of a few fields of the model.
FORMAT = 2

MOVED = {
    "objective.loss": "objective.cross_entropy",
    "schedule.end": "schedule.end_value",
    "data.kernel": "data.interpolation",
    "data.eval_kernel": "data.eval_interpolation",
    "data.eval_crop": "data.crop_pct",
    "model.gelu": "model.activation",
    "model.stochastic_depth": "model.drop_path",
}
# New values of fields, by the field's old path.
MOVED_VALUES: dict[str, dict[Any, str]] = {"model.gelu": old_names.ACTIVATIONS}

# Old fields that are entries of `augment` now, and the types of their values.
AUGMENTATIONS: dict[str, type] = {"data.flip": bool, "data.mixup": float}
DEFAULT_AUGMENT = ("flip", "value_range")


def with_new_names(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values under their current names, and a note for each renamed field."""
    found: dict[str, Any] = copy.deepcopy(dict(values))
    notes = _listed(found)
    for old, new in MOVED.items():
        *where, name = old.split(".")
        group = _group(found, where)
        if group is not None and name in group:
            value = new_value(old, group.pop(name))
            *place, new_name = new.split(".")
            target = found
            for part in place:
                target = target.setdefault(part, {})
            target[new_name] = value
            notes.append(renamed(old))
    return found, notes


def with_zoo_name(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values with `model.name` as the zoo has it, the options it stands for, and a note.

    Options that the values set are kept. Raises ValueError for an unknown name.
    """
    model = values.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(name, str) or not name:
        return dict(values), []
    alias = zoo.understood(name)
    if alias.name == name:
        return dict(values), []
    given = {key: value for key, value in model.items() if value not in ("", ())}
    taken = {k: v for k, v in alias.fields.items() if k not in given or isinstance(v, Mapping)}
    merged = {k: {**v, **given.get(k, {})} for k, v in taken.items() if isinstance(v, Mapping)}
    data = values.get("data") or {}
    # A checkpoint says itself which images it expects.
    unset = isinstance(data, Mapping) and not values.get("init_from")
    own = {k: v for k, v in alias.input.items() if unset and not data.get(k)}
    described = dataclasses.replace(alias, fields=taken, input=own).described(name)
    size = values.get("image_size") or ()
    sides = tuple(size) if isinstance(size, list | tuple) else (size,)
    note = f"config.model.name={described}{alias.of_size(sides) if sides else ''}"
    model = {**given, **taken, **merged, "name": alias.name}
    return {**values, "model": model, **({"data": {**data, **own}} if own else {})}, [note]


def _listed(found: dict[str, Any]) -> list[str]:
    """Turns `data.flip` and `data.mixup` into entries of `augment`."""
    data, notes = found.get("data"), []
    if not isinstance(data, dict):
        return []
    given = found.get("augment", DEFAULT_AUGMENT)
    entries = list(given) if isinstance(given, list | tuple) else [given]
    for path, kind in AUGMENTATIONS.items():
        name = path.partition(".")[2]
        if name not in data:
            continue
        value: Any = data.pop(name)
        if not (type(value) is kind or kind is float and type(value) is int):
            raise ValueError(f"config.{path} must be {kind.__name__}, got {value!r}")
        entries = [e for e in entries if (e.get("name") if isinstance(e, Mapping) else e) != name]
        if name == "flip" and value:
            entries.insert(0, name)
        elif name == "mixup" and value:
            entries.append({"name": name, "alpha": value})
        notes.append(f"config.{path} is an entry of config.augment now: {entries}")
    if notes:
        found["augment"] = tuple(entries)
    return notes


def new_path(path: str) -> str:
    """The current path of a field; `path` may be an old one."""
    return MOVED.get(path, path)


def new_value(path: str, value: Any) -> Any:
    """The current value of a field whose old path is `path`."""
    values = MOVED_VALUES.get(path, {})
    return values.get(value, value) if isinstance(value, str) else value


def renamed(path: str) -> str:
    return f"config.{path} is called config.{MOVED[path]} now"


def of_file(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in a config.json of any format. Raises ValueError for a later format."""
    values = dict(values)
    number = values.pop("format", 0)
    if type(number) is not int or number > FORMAT:
        raise ValueError(
            f"its format is {number!r}, and this version of vit_jax reads formats up to {FORMAT}:"
            " use the version that wrote it, or a later one"
        )
    if number < FORMAT:
        values, _ = with_new_names(values)
    if number == 0:
        values = _selected(kind, values)
        # The old default. Now the default depends on the objective.
        kept = values.get("checkpoint")
        if isinstance(kept, Mapping) and kept.get("metric") == "top1":
            values["checkpoint"] = {k: v for k, v in kept.items() if k != "metric"}
    return values


def _selected(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without the fields of entries that are not selected, which had no effect."""
    found = dict(values)
    for name, field in fields(kind).items():
        if choice := field.beside:
            name_of = values.get(choice.key, choice.default)
            if not isinstance(name_of, str):  # it is refused later
                continue
            chosen = choice.table.get(name_of)
            for key in choice.fields() - (set(fields(chosen)) if chosen else choice.fields()):
                found.pop(key, None)
        elif not field.form and is_group(field.kind) and isinstance(found.get(name), Mapping):
            found[name] = _selected(field.kind, found[name])
    return found


def _group(values: Any, path: list[str]) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, dict) else None
