"""The JSON files beside weights: which of them are a file's own, and what we add to them.

Releases keep config.json and preprocessor_config.json in the folder of their one file of weights.
We write config.json beside any file. Where the folder has one of another file already, ours is
called after the weights: `b.npz.config.json`. That name is looked for first.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from vit_jax import plain_json
from vit_jax.models import old_names
from vit_jax.models.zoo import RUN_FIELDS, Options
from vit_jax.schema import build

_OURS = "vit_jax"  # the entry of a config.json that holds what no other reader knows
_CONFIG = "config.json"
_LONGEST = 255  # bytes of the name of a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
    """What we know of a file that we wrote and that its arrays and other entries do not tell."""

    file: str = ""  # the name of the weights that it was written with
    layout: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def config_path(file: pathlib.Path) -> pathlib.Path:
    """Where a file's config is written: never over that of another file."""
    own, shared = own_config(file), file.with_name(_CONFIG)
    return own if own.exists() or shared.exists() and not _is_of(shared, file) else shared


def own_config(file: pathlib.Path) -> pathlib.Path:
    """The config that is called after its weights."""
    return file.with_name(f"{file.name}.{_CONFIG}")


def whose(content: Mapping[str, Any], file: pathlib.Path) -> str:
    """The file beside that a config.json was written with, "" where that is `file` or unknown."""
    name = exact(content).file
    other = name and name != file.name and (file.parent / name).exists()
    return name if other else ""


def exact(content: Mapping[str, Any]) -> Exact:
    """Our entry of a config.json. Raises ValueError where it is none that we wrote."""
    entry = content.get(_OURS) or {}
    known = {field.name: type(field.default) for field in dataclasses.fields(Exact)}
    if not isinstance(entry, Mapping) or any(name not in known for name in entry):
        raise ValueError(f"config.json has an entry {_OURS} that is not known here")
    for name, value in entry.items():
        wanted = str if name in ("file", "layout") else Mapping
        if not isinstance(value, wanted):
            raise ValueError(f"config.json has {_OURS} {name} {value!r}, which has another type")
    name = entry.get("file", "")
    long = len(name.encode(errors="surrogatepass")) > _LONGEST
    if long or any(part in name for part in ("/", "\\", "\0")):
        raise ValueError(f"config.json has {_OURS} file {entry['file']!r}, which is no name")
    found = Exact(**entry)
    return dataclasses.replace(
        found,
        options=old_names.options(found.options),
        preprocessing=old_names.preprocessing(found.preprocessing),
    )


def with_exact(content: Mapping[str, Any], entry: Exact) -> dict[str, Any]:
    """A config.json with our entry."""
    fields = {name: value for name, value in vars(entry).items() if value}
    return dict(content) | {_OURS: json.loads(json.dumps(fields))}


def of_options(read: Options, wanted: Options) -> dict[str, Any]:
    """As `differences`, without fields of training, and one that may leave it to another field."""
    same = read.has_class_token == wanted.has_class_token
    return differences(read, wanted, but=(*RUN_FIELDS, *(("class_token",) if same else ())))


def differences(read: Any, wanted: Any, *, but: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass that were read otherwise than they are, as JSON has them."""
    return {
        name: _plain(value) if dataclasses.is_dataclass(value) else value
        for name, value in vars(wanted).items()
        if name not in but and getattr(read, name) != value
    }


def corrected(read: Any, told: Mapping[str, Any], what: str) -> Any:
    """A dataclass with the fields that are told. Raises ValueError where they do not fit it."""
    if not told:
        return read
    return build(type(read), _plain(read) | dict(told), f"config.json's {_OURS}.{what}")


def _plain(value: Any) -> dict[str, Any]:
    return dict(dataclasses.asdict(value))


def _is_of(config: pathlib.Path, file: pathlib.Path) -> bool:
    """Whether we wrote a config.json with this file, or with one that is gone."""
    try:
        content = plain_json.loads(config.read_text())
        return isinstance(content, dict) and bool(exact(content).file) and not whose(content, file)
    except (ValueError, OSError):
        return False
