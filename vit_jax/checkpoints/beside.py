"""The JSON files beside weights: which of them belong to a file, and the entry that we add.

Released models have config.json and preprocessor_config.json in the same folder as the weights.
`save` writes a config.json beside any file. If the folder has a config.json that belongs to another
file, ours is named after the weights: `b.npz.config.json`. Readers look for that name first.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from vit_jax import plain_json
from vit_jax.models import old_names
from vit_jax.models.model import TrainedWith
from vit_jax.models.zoo import FREE_FIELDS, Options
from vit_jax.schema import build

_OURS = "vit_jax"  # the entry of a config.json that other readers do not know
_CONFIG = "config.json"
_MAX_NAME_BYTES = 255  # of a file's name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
    """Our entry of a config.json: what the arrays and the other entries leave open or get wrong."""

    file: str = ""  # the name of the file of weights that the config.json was written with
    layout: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cross_entropy: TrainedWith = ""


def config_path(file: pathlib.Path) -> pathlib.Path:
    """The path to write a file's config to. The config of another file is never overwritten."""
    own, shared = own_config(file), file.with_name(_CONFIG)
    return own if own.exists() or shared.exists() and not _belongs_to(shared, file) else shared


def own_config(file: pathlib.Path) -> pathlib.Path:
    """The path of a config that is named after its weights."""
    return file.with_name(f"{file.name}.{_CONFIG}")


def other_owner(content: Mapping[str, Any], file: pathlib.Path) -> str:
    """The name of the other file in the folder that a config.json belongs to.

    "" where the config.json belongs to `file`, to a file that no longer exists, or names none.
    """
    name = exact(content).file
    other = name and name != file.name and (file.parent / name).exists()
    return name if other else ""


def exact(content: Mapping[str, Any]) -> Exact:
    """Our entry of a config.json. Raises ValueError where it has unknown or wrong fields."""
    entry = content.get(_OURS) or {}
    known = {field.name: type(field.default) for field in dataclasses.fields(Exact)}
    if not isinstance(entry, Mapping) or any(name not in known for name in entry):
        raise ValueError(
            f"config.json: {_OURS} must be an object with the fields {', '.join(known)}, got"
            f" {entry!r}"
        )
    for name, value in entry.items():
        wanted = Mapping if name in ("options", "preprocessing") else str
        if not isinstance(value, wanted):
            kind = "a text" if wanted is str else "an object"
            raise ValueError(f"config.json: {_OURS}.{name} must be {kind}, got {value!r}")
    name = entry.get("file", "")
    long = len(name.encode(errors="surrogatepass")) > _MAX_NAME_BYTES
    if long or any(part in name for part in ("/", "\\", "\0")):
        raise ValueError(f"config.json: {_OURS}.file must be the name of a file, got {name!r}")
    chosen = entry.get("cross_entropy", "")
    build(TrainedWith, chosen, f"config.json: {_OURS}.cross_entropy")
    found = Exact(**entry)
    return dataclasses.replace(
        found,
        options=old_names.options(found.options),
        preprocessing=old_names.preprocessing(found.preprocessing),
    )


def cross_entropy(content: Mapping[str, Any], entry: Exact) -> TrainedWith:
    """What the model of a config.json was trained with, by our entry or by Hugging Face's.

    "" if neither says it. Hugging Face trains models for several labels with the mean of sigmoids.
    """
    several = content.get("problem_type") == "multi_label_classification"
    return entry.cross_entropy or ("sigmoid_mean" if several else "")


def with_exact(content: Mapping[str, Any], entry: Exact) -> dict[str, Any]:
    """The content of a config.json with our entry added."""
    fields = {name: value for name, value in vars(entry).items() if value}
    return dict(content) | {_OURS: json.loads(json.dumps(fields))}


def options_differences(read: Options, wanted: Options) -> dict[str, Any]:
    """`differences` of the options that change a model's outputs.

    Fields of a run are left out, and `class_token` where both models have a class token or none.
    """
    same = read.has_class_token == wanted.has_class_token
    return differences(read, wanted, ignored=(*FREE_FIELDS, *(("class_token",) if same else ())))


def differences(read: Any, wanted: Any, *, ignored: Collection[str] = ()) -> dict[str, Any]:
    """The fields of the dataclass `wanted` that `read` has another value for, as JSON values."""
    return {
        name: _plain(value) if dataclasses.is_dataclass(value) else value
        for name, value in vars(wanted).items()
        if name not in ignored and getattr(read, name) != value
    }


def with_fields(read: Any, fields: Mapping[str, Any], what: str) -> Any:
    """The dataclass `read` with some fields replaced. Raises ValueError where they do not fit."""
    if not fields:
        return read
    return build(type(read), _plain(read) | dict(fields), f"config.json's {_OURS}.{what}")


def _plain(value: Any) -> dict[str, Any]:
    return dict(dataclasses.asdict(value))


def _belongs_to(config: pathlib.Path, file: pathlib.Path) -> bool:
    """Whether we wrote a config.json with this file, or with a file that no longer exists."""
    try:
        content = plain_json.loads(config.read_text())
        ours = isinstance(content, dict) and bool(exact(content).file)
        return ours and not other_owner(content, file)
    except (ValueError, OSError):
        return False
