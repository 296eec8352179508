"""Reads released files of every format. Nothing in a file is run; bad files raise one line."""

import dataclasses
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors

from vit_jax import plain_json
from vit_jax.checkpoints import beside, msgpack_file, npz_file, torch_module, wrappers
from vit_jax.checkpoints.torch_file import TorchFile
from vit_jax.checkpoints.torch_pickle import Module, Tensor
from vit_jax.models import zoo

Arrays = dict[str, np.ndarray]

# Files of weights in the folder of a released model; the first that exists is read.
_NAMES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("flax_model.msgpack", "flax_model.msgpack.index.json"),
)
_FORMATS = ".npz, .safetensors, .pth, .bin, .msgpack or their .index.json"

# Weights hardly compress. An archive that unpacks to more than _SMALL bytes and to more than
# _MAX_GROWTH times its size is made to fill the memory.
_MAX_GROWTH, _SMALL = 100, 2**30

# Keys under which trainers save a model's tensors; the first that exists is read. An average over
# training comes before the model that is averaged, as in timm.
_STATES = (
    *("state_dict_ema", "model_ema", "ema", "ema_model", "averaged_model", "swa_model"),
    *("ema_state_dict", "state_dict", "model", "model_state_dict", "module", "teacher"),
    *("net", "network", "student", "backbone", "encoder"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """A model's arrays from a file."""

    arrays: Arrays
    key: str = ""  # of the arrays in a file of `torch.save`: it shows which code saved the file
    notes: tuple[str, ...] = ()  # messages about which parts of the file were read or left out


def locate(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file of weights at a path: the path itself, or a file in that folder.

    Raises ValueError where there is none.
    """
    path = pathlib.Path(path)
    try:
        found = path.is_file(), path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise ValueError(f"no checkpoint at {path}: {error.strerror}") from error
    if found[0]:
        return path
    if not found[1]:
        raise ValueError(f"no checkpoint at {path}{_if_a_model(str(path))}")
    for name in _NAMES:
        if (path / name).is_file():
            return path / name
    if any(file.suffix in (".stablehlo", ".onnx") for file in path.iterdir()):
        raise ValueError(
            f"{path} has an exported program, which its runtime.py runs: name what it was exported"
            " from, or export that with --format safetensors"
        )
    raise ValueError(
        f"no checkpoint at {path}: the folder has no model.json of a run and no {_NAMES[0]}"
    )


def _if_a_model(path: str) -> str:
    """A remark where a path that does not exist is the name of a model, else ""."""
    try:
        meant = zoo.understood(path).name
    except ValueError:
        return ""
    return f": it is a name of the model {meant}, give a file or folder with its weights"


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """The arrays of `contents`."""
    return contents(path).arrays


def read(path: str | os.PathLike[str]) -> tuple[Arrays, str]:
    """The arrays of `contents`, and their key."""
    found = contents(path)
    return found.arrays, found.key


def contents(path: str | os.PathLike[str]) -> Contents:
    """A model's arrays by their own names; floating-point arrays become float32.

    The format is recognised from the content: .npz, .safetensors, a .pth or .bin of `torch.save`,
    a .msgpack of Flax, or the index of a sharded checkpoint. Prefixes that trainers add to names
    are removed, and arrays outside the model are left out (see `wrappers`). Raises ValueError with
    one line where the file is missing, damaged, or of another format.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    try:
        found = _reader(path)(path)
        own, notes = wrappers.unwrapped(found.arrays)
        arrays = {short: _as_float32(short, found.arrays[name]) for name, short in own.items()}
    except _ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, zipfile.BadZipFile):
            reason = "it is truncated or damaged"
        raise ValueError(f"{path} is not a readable checkpoint: {reason}") from error
    return Contents(arrays=arrays, key=found.key, notes=found.notes + notes)


_ERRORS = (
    *(zipfile.BadZipFile, EOFError, OSError, ValueError, MemoryError, NotImplementedError),
    *(safetensors.SafetensorError, KeyError, RuntimeError, zlib.error),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """The content of the JSON files beside weights, {} where there is no file."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]


def read_beside(file: pathlib.Path) -> Beside:
    """The JSON files that belong to a file of weights.

    The config is named after the file (`b.npz.config.json`) or config.json.
    """
    if (own := beside.own_config(file)).is_file():
        return Beside(config=_read_json(own), preprocessor={})
    in_run = file.with_name("model.json").is_file()  # then config.json is a training config
    config = {} if in_run else _read_json(file.with_name("config.json"))
    if beside.other_owner(config, file):
        return Beside(config={}, preprocessor={})
    one_file = beside.exact(config).layout not in ("", "hf")  # it has no preprocessor_config.json
    preprocessor = {} if one_file else _read_json(file.with_name("preprocessor_config.json"))
    return Beside(config=config, preprocessor=preprocessor)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = plain_json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not readable JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content


def _reader(path: pathlib.Path) -> Callable[[pathlib.Path], Contents]:
    with path.open("rb") as stream:
        head = stream.read(16)
    if path.name.endswith(".index.json"):
        return _read_sharded
    if head.startswith(b"PK"):
        names = _members(path)
        return _read_npz if any(n.endswith(".npy") for n in names) else _read_torch
    if head[8:9] == b"{":  # the first 8 bytes are the header's length
        return _read_safetensors
    if head.startswith(b"\x80"):
        if zipfile.is_zipfile(path):  # an archive may follow other bytes
            _members(path)
        return _read_torch
    if msgpack_file.begins(head):
        return _read_msgpack
    if head.startswith(b"\x93NUMPY"):
        raise ValueError("it holds one array without a name, a checkpoint has named arrays")
    what = f"it begins with {head[:8]!r}, which is none of {_FORMATS}" if head else "it is empty"
    raise ValueError(what)


def _members(path: pathlib.Path) -> list[str]:
    """The names of an archive's files. Raises ValueError where they are not those of weights."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("it is compressed by a method that neither NumPy nor PyTorch uses")
    size = sum(entry.file_size for entry in entries)
    if size > max(_MAX_GROWTH * path.stat().st_size, _SMALL):
        raise ValueError(f"it would unpack to {size} bytes, which no checkpoint needs")
    return [entry.filename for entry in entries]


def _read_npz(path: pathlib.Path) -> Contents:
    return Contents(arrays=npz_file.read(path))


def _read_safetensors(path: pathlib.Path) -> Contents:
    arrays: Arrays = {}
    with safetensors.safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            try:
                arrays[name] = file.get_tensor(name)
            except AttributeError as error:  # float8 and smaller
                raise ValueError(f"{name} has a type that cannot be read: {error}") from error
    return Contents(arrays=arrays)


def _read_torch(path: pathlib.Path) -> Contents:
    file = TorchFile(path)
    state, key, notes = _state(file.content)
    return Contents(arrays=file.arrays(state), key=key, notes=notes)


def _read_msgpack(path: pathlib.Path) -> Contents:
    return Contents(arrays=msgpack_file.read(path))


def _read_sharded(path: pathlib.Path) -> Contents:
    """The index says which file of the folder holds each tensor."""
    wanted = _read_json(path).get("weight_map")
    if not isinstance(wanted, dict) or not wanted:
        raise ValueError("it has no weight_map")
    shards = list(wanted.values())
    if not all(isinstance(shard, str) for shard in shards):
        raise ValueError("its weight_map has values that are not names of files")
    arrays: Arrays = {}
    for shard in sorted(set(shards)):
        if shard.endswith(".json"):
            raise ValueError(f"its shard {shard} is not a file of arrays")
        if pathlib.PurePath(shard).name != shard:
            raise ValueError(f"its shard {shard!r} is in another folder")
        if not (path.parent / shard).is_file():
            raise ValueError(f"its shard {shard} is missing")
        arrays |= _reader(path.parent / shard)(path.parent / shard).arrays
    # Flax's index has slashes in names where the arrays were read with dots.
    names = {name if name in arrays else name.replace("/", ".") for name in wanted}
    if missing := sorted(names - set(arrays)):
        raise ValueError(f"its shards lack {', '.join(missing)}")
    return Contents(arrays=arrays)


def _state(content: Any) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """The model's tensors by name, the key that a trainer saves its model under, and notes.

    The key is "model" for an average beside it too. A note names the keys that were read, and other
    keys with tensors, which are left out.
    """
    key, keys, others = "", [], []
    known: _Known = {}
    states: _Known = {}
    if isinstance(content, Module):
        return torch_module.tensors(content), key, ()
    for _ in range(4):  # keys may be nested
        outer = content if isinstance(content, dict) else {}
        found = [name for name in _STATES if _holds_state(outer.get(name), states)]
        if not found:
            break
        key = "model" if "model" in found else found[0]
        keys.append(found[0])
        content = outer[found[0]]
        beside = [k for k, v in outer.items() if k != found[0] and _holds_tensors(v, known)]
        others += [k if isinstance(k, str) and k.isprintable() else ascii(k) for k in beside]
    if state := _tensors(content):
        note = f"read {'.'.join(keys)!r} of the file; left out: {', '.join(others)}"
        return state, key, (note,) if others else ()
    raise ValueError("it holds no named tensors, neither directly nor under a key such as 'model'")


# Whether a dict holds tensors, by its id and the depth that is searched.
_Known = dict[tuple[int, int], bool]


def _holds_state(value: Any, known: _Known, *, depth: int = 4) -> bool:
    """Whether a value is a dict of named tensors, or has one under a key of `_STATES`.

    Each dict is searched once at each depth.
    """
    if not (isinstance(value, dict) and depth):
        return False
    place = id(value), depth
    if place not in known:
        inner = (value.get(name) for name in _STATES)
        known[place] = bool(_tensors(value)) or any(
            _holds_state(one, known, depth=depth - 1) for one in inner
        )
    return known[place]


def _holds_tensors(value: Any, known: _Known, *, depth: int = 4) -> bool:
    """Whether a value holds tensors, as another model or an optimizer's state does.

    Each dict is searched once at each depth, although several dicts may hold it.
    """
    if not (isinstance(value, dict) and depth):
        return isinstance(value, Tensor)
    place = id(value), depth
    if place not in known:
        known[place] = any(_holds_tensors(one, known, depth=depth - 1) for one in value.values())
    return known[place]


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _as_float32(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and not array.dtype.names:
        bits = array.view(np.uint16).astype(np.uint32)  # bfloat16: the high half of a float32
        return (bits << 16).view(np.float32)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = array.astype(np.float32, copy=False)
        if array.itemsize > narrow.itemsize:
            large = np.isinf(narrow) & np.isfinite(array)
            if large.any():
                raise ValueError(f"{name} holds {array[large][0]}, which is too large for float32")
        return narrow
    if array.dtype.kind in "iub":
        return array
    raise ValueError(f"{name} holds {array.dtype}, which is not a number type")
