"""Files from outside, whatever their format: read without running them, refused in one line."""

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
from vit_jax.checkpoints import beside, msgpack_file, npz_file, wrappers
from vit_jax.checkpoints.torch_file import TorchFile
from vit_jax.checkpoints.torch_pickle import Tensor

Arrays = dict[str, np.ndarray]

# What a folder of a released model holds, the first that is there is read.
_NAMES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("flax_model.msgpack", "flax_model.msgpack.index.json"),
)
_FORMATS = ".npz, .safetensors, .pth, .bin, .msgpack or their .index.json"

# Weights hardly compress; what grows a hundred times, and to more than that, fills the memory.
_MAX_GROWTH, _SMALL = 100, 2**30

# Keys under which trainers keep a model's tensors, the first that is there is read.
_STATES = (
    *("state_dict_ema", "state_dict", "model", "model_state_dict", "module", "teacher"),
    *("model_ema", "ema", "net", "network", "student", "backbone", "encoder"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds of a model."""

    arrays: Arrays
    key: str = ""  # under which a file of `torch.save` kept them: it tells who saved it
    notes: tuple[str, ...] = ()  # what of the file was taken and what was left out, in words


def locate(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file to read of a released file or folder. Raises ValueError where there is none."""
    path = pathlib.Path(path)
    try:
        found = path.is_file(), path.is_dir()
    except OSError as error:  # a name that no file can have
        raise ValueError(f"no checkpoint at {path}: {error.strerror}") from error
    if found[0]:
        return path
    if not found[1]:
        raise ValueError(f"no checkpoint at {path}")
    for name in _NAMES:
        if (path / name).is_file():
            return path / name
    raise ValueError(f"{path} is no run, and holds no {_NAMES[0]}: no checkpoint is there")


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """The arrays of `contents`."""
    return contents(path).arrays


def read(path: str | os.PathLike[str]) -> tuple[Arrays, str]:
    """The arrays of `contents`, and their key."""
    found = contents(path)
    return found.arrays, found.key


def contents(path: str | os.PathLike[str]) -> Contents:
    """A model's arrays by their own names; numbers with a fraction become float32.

    The format is recognised from the content: .npz, .safetensors, a .pth or .bin of `torch.save`,
    a .msgpack of Flax, or the index of a sharded one. The names that trainers wrap around a
    model's are removed, and what else they save is left out (see `wrappers`). Raises ValueError in
    one line where it is missing, damaged, or of no such format.
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
        raise ValueError(f"{path} is no readable checkpoint: {reason}") from error
    return Contents(arrays=arrays, key=found.key, notes=found.notes + notes)


_ERRORS = (
    *(zipfile.BadZipFile, EOFError, OSError, ValueError, MemoryError, NotImplementedError),
    *(safetensors.SafetensorError, KeyError, RuntimeError, zlib.error),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """The JSON files that releases keep beside their weights, {} where there is none."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]


def read_beside(file: pathlib.Path) -> Beside:
    """What tells of a file of weights: config.json, or one that is called after the file."""
    if (own := beside.own_config(file)).is_file():
        return Beside(config=_read_json(own), preprocessor={})
    in_run = file.with_name("model.json").is_file()  # whose config.json is of its training
    config = {} if in_run else _read_json(file.with_name("config.json"))
    if beside.whose(config, file):
        return Beside(config={}, preprocessor={})
    whole = beside.exact(config).layout not in ("", "hf")
    preprocessor = {} if whole else _read_json(file.with_name("preprocessor_config.json"))
    return Beside(config=config, preprocessor=preprocessor)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = plain_json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is no readable JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def _reader(path: pathlib.Path) -> Callable[[pathlib.Path], Contents]:
    with path.open("rb") as stream:
        head = stream.read(16)
    if path.name.endswith(".index.json"):
        return _read_sharded
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            size = sum(entry.file_size for entry in archive.infolist())
            methods = {entry.compress_type for entry in archive.infolist()}
        if methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError("it is compressed by a method that neither NumPy nor PyTorch uses")
        if size > max(_MAX_GROWTH * path.stat().st_size, _SMALL):
            raise ValueError(f"it claims to unpack to {size} bytes: that is no checkpoint")
        return _read_npz if any(n.endswith(".npy") for n in names) else _read_torch
    if head[8:9] == b"{":  # after the 8 bytes of its header's length
        return _read_safetensors
    if head.startswith(b"\x80"):
        return _read_torch
    if msgpack_file.begins(head):
        return _read_msgpack
    if head.startswith(b"\x93NUMPY"):
        raise ValueError("it holds one bare array, not named ones")
    what = f"it begins with {head[:8]!r}" if head else "it is empty"
    raise ValueError(f"{what}, and is none of {_FORMATS}")


def _read_npz(path: pathlib.Path) -> Contents:
    return Contents(arrays=npz_file.read(path))


def _read_safetensors(path: pathlib.Path) -> Contents:
    arrays: Arrays = {}
    with safetensors.safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            try:
                arrays[name] = file.get_tensor(name)
            except AttributeError as error:  # float8 and smaller
                raise ValueError(f"{name} is of a type that is not read here: {error}") from error
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
        raise ValueError("its weight_map holds more than names of files")
    arrays: Arrays = {}
    for shard in sorted(set(shards)):
        if shard.endswith(".json"):
            raise ValueError(f"its shard {shard} holds no arrays")
        if pathlib.PurePath(shard).name != shard:
            raise ValueError(f"its shard {shard!r} is in another folder")
        if not (path.parent / shard).is_file():
            raise ValueError(f"its shard {shard} is missing")
        arrays |= _reader(path.parent / shard)(path.parent / shard).arrays
    # Flax's index has slashes where the arrays are read with dots.
    names = {name if name in arrays else name.replace("/", ".") for name in wanted}
    if missing := sorted(names - set(arrays)):
        raise ValueError(f"its shards lack {', '.join(missing)}")
    return Contents(arrays=arrays)


def _state(content: Any) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """The model's tensors by name, out of what a trainer saved around them, and their key.

    With them comes, in words, what else with tensors was beside them.
    """
    key, others = "", []
    for _ in range(4):  # a state in a model in a file
        outer = content if isinstance(content, dict) else {}
        found = [name for name in _STATES if isinstance(outer.get(name), dict)]
        if not found:
            break
        key, content = found[0], outer[found[0]]
        beside = [k for k, v in outer.items() if k != key and _holds_tensors(v)]
        others += [k if isinstance(k, str) and k.isprintable() else ascii(k) for k in beside]
    if state := _tensors(content):
        taken = f"read {key!r} of the file; left out: {', '.join(others)}"
        return state, key, (taken,) if others else ()
    raise ValueError("it holds no named tensors, or none under a name such as 'model'")


def _holds_tensors(value: Any, *, depth: int = 4) -> bool:
    """Whether there are tensors in it, as there are in another model or an optimizer's state."""
    if isinstance(value, dict) and depth:
        return any(_holds_tensors(one, depth=depth - 1) for one in value.values())
    return isinstance(value, Tensor)


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _as_float32(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and not array.dtype.names:
        bits = array.view(np.uint16).astype(np.uint32)  # bfloat16: the high half of a float32
        return (bits << 16).view(np.float32)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "iub":
        return array
    raise ValueError(f"{name} holds {array.dtype}, which is no number")
