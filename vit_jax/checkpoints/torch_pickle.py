"""Reads the pickle in a PyTorch file as data, with an interpreter that never calls foreign code.

A pickle is a program. This interpreter knows the opcodes that make numbers, strings and containers,
and a fixed list of names: those of tensors, storages, containers, modules of PyTorch and DALL-E,
and records that are kept unread (training arguments, NumPy scalars). Nothing is imported; any other
name is refused.
"""

import dataclasses
import pickletools
import struct
from collections.abc import Callable
from typing import Any, BinaryIO


@dataclasses.dataclass(frozen=True)
class Storage:
    """A block of numbers elsewhere in the file."""

    key: str
    kind: str  # "FloatStorage", ...
    size: int  # in numbers; "UntypedStorage": in bytes
    start: int = 0  # where it begins in the file's storage, in numbers


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided view of a storage that is not read yet. Offset and strides are in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str = ""  # set where the storage is untyped


@dataclasses.dataclass(eq=False)
class Inert:
    """An object of a harmless class, without its content."""

    name: str


@dataclasses.dataclass(eq=False)
class Module:
    """A module of PyTorch or DALL-E that was saved whole: its attributes, without its code."""

    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Name:
    """A global name of the pickle, from which a REDUCE opcode may build an object."""

    path: str


# Reading a pickle must take time and memory in proportion to its length. So copies are counted
# (see `_count_copies`), shapes have at most as many axes as in NumPy, and names and integers that
# are joined or hashed again and again are short.
_MAX_AXES = 64
_MAX_LETTERS = 200
_MAX_KEY_BITS = 64


def interpret(stream: BinaryIO, *, storages: dict[str, Storage] | None = None) -> Any:
    """The object of the next pickle in the stream: containers, plain values, `Tensor`, `Inert`.

    Every storage that it names is added to `storages`, including those in unread records. Raises
    ValueError that names the first refused item, or says that the pickle is damaged.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.finish()
            machine.step(opcode.name, argument)
    except _Refused as refusal:
        raise ValueError(str(refusal)) from None
    except _DAMAGE as error:
        raise ValueError("its pickle is damaged or truncated") from error
    raise ValueError("its pickle is truncated")


# Errors of pickletools (such as struct.error), and of opcodes in a wrong place.
_DAMAGE = (
    *(ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError),
    *(RecursionError, struct.error, MemoryError),
)


class _Refused(Exception):
    """The pickle does something that no checkpoint needs."""


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[Any] = []  # values pushed after the last mark
        self.below: list[list[Any]] = []  # values pushed before each mark
        self.memo: dict[int, Any] = {}
        self.steps = self.copied = 0

    def finish(self) -> Any:
        value = self.stack.pop()
        if self.stack or self.below:
            raise ValueError
        return value

    def step(self, opcode: str, argument: Any) -> None:
        self.steps += 1
        stack = self.stack
        if opcode == "MARK":
            self.below.append(stack)
            self.stack = []
        elif opcode in _PUSH_ARGUMENT:
            stack.append(argument)
        elif opcode in _PUSH_CONSTANT:
            stack.append(_PUSH_CONSTANT[opcode])
        elif opcode in _PUSH_EMPTY:
            stack.append(_PUSH_EMPTY[opcode]())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(opcode[-1])
            items = tuple(stack[-size:])
            if len(items) < size:
                raise IndexError
            stack[-size:] = [items]
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            if opcode == "STACK_GLOBAL":
                name, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
                _check_letters(len(module) + len(name))
                argument = f"{module} {name}"
            stack.append(_allowed(argument))
        elif opcode == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        elif opcode in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            self._count_copies(arguments)
            stack.append(_build(stack.pop(), arguments))
        elif opcode == "BUILD":
            state = stack.pop()  # not needed if it is that of a record, or attributes of a dict
            if isinstance(stack[-1], Module):
                stack[-1].attributes = _expect(state, dict)
            elif not isinstance(stack[-1], Inert | dict | Tensor):
                raise _Refused("it sets the state of an object that is not a record")
        elif opcode in _FILL:
            self._fill(opcode)
        elif opcode not in _FRAMING:
            raise _Refused(f"it uses the pickle opcode {opcode}, which no checkpoint needs")

    def _fill(self, opcode: str) -> None:
        """Opcodes that put values into a container."""
        stack = self.stack
        if opcode in ("APPEND", "SETITEM"):
            count = 1 if opcode == "APPEND" else 2
            items = stack[-count:]
            del stack[-count:]
        else:
            items = self._marked()
            stack = self.stack
        pairs = zip(items[::2], items[1::2], strict=opcode in ("DICT", "SETITEM", "SETITEMS"))
        if opcode == "FROZENSET":
            stack.append(Inert("frozenset"))
        elif opcode in ("TUPLE", "LIST", "DICT"):
            stack.append(
                {"TUPLE": tuple, "LIST": list, "DICT": dict}[opcode](
                    ((_key(k), v) for k, v in pairs) if opcode == "DICT" else items
                )
            )
        elif isinstance(stack[-1], Inert):
            return  # the items of a container that is a record are not needed
        elif opcode in ("APPEND", "APPENDS"):
            _expect(stack[-1], list).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            _expect(stack[-1], dict).update((_key(k), v) for k, v in pairs)
        else:
            _expect(stack[-1], set).update(map(_key, items))

    def _persistent(self, identity: Any) -> Any:
        """A storage; or a class, which old files save together with its source code."""
        match identity:
            case ("module", Name() as name, _, _):
                return name
        storage = _storage(identity)
        self.storages[storage.key] = storage
        return storage

    def _marked(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def _count_copies(self, arguments: Any) -> None:
        """Limits the values that calls copy to the number of opcodes (plus 1000)."""
        # In this order, values are counted before they are looked at.
        self._count(len(_expect(arguments, tuple)))
        self._count(_length(arguments))
        self._count(sum(_length(a) for a in arguments if type(a) is tuple))

    def _count(self, copies: int) -> None:
        self.copied += copies
        if self.copied > self.steps + 1000:
            raise _Refused("it copies the same values over and over, which no checkpoint needs")


def _length(values: Any) -> int:
    """The number of values in the containers in `values`."""
    return sum(len(value) for value in values if isinstance(value, list | dict | tuple))


def _key(value: Any) -> Any:
    """A cheap key for a dict or set: hashing nested tuples or a long integer may take for ever."""
    if isinstance(value, int) and value.bit_length() > _MAX_KEY_BITS:
        return Inert("key")
    return value if isinstance(value, str | int | float | bytes | None) else Inert("key")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _check_letters(letters: int) -> None:
    if letters > _MAX_LETTERS:
        raise _Refused(f"it has a name of {letters} letters, which no checkpoint needs")


def _allowed(path: str) -> Name:
    _check_letters(len(path) - 1)
    module, _, name = path.partition(" ")
    storage = module in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage")
    dtype = module == "torch" and name.islower() and name.isidentifier() and name not in _BUILD
    known = path in _BUILD or path in _INERT or module.startswith(_MODULES)
    if known or storage or (dtype and name.startswith(_DTYPES)):
        return Name(path)
    raise _Refused(
        f"it names {module}.{name}, which could run code: only tensors and plain data are read."
        " If you trust its source, save it again as safetensors"
    )


def _build(name: Any, arguments: Any) -> Any:
    if not isinstance(name, Name):
        raise _Refused("it calls an object without a name")
    if name.path in _INERT:
        return Inert(name.path)
    if name.path.startswith(_MODULES):
        return Module({})
    if name.path not in _BUILD:
        raise _Refused(f"it calls {name.path.replace(' ', '.')}, which cannot be called here")
    return _BUILD[name.path](*arguments)


def _storage(identity: Any) -> Storage:
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise _Refused("it refers to an object that is not a tensor's storage")
    kind, key, _, size = identity[1:5]
    if not isinstance(key, str | int):
        raise _Refused("it refers to an object that is not a tensor's storage")
    view = identity[5] if len(identity) > 5 else None  # in old files: (key, start, size)
    start, size = (int(view[1]), int(view[2])) if view else (0, int(size))
    return Storage(str(key), kind.path.split(" ")[1], size, start)


def _tensor(
    storage: Storage, offset: int, shape: Any, strides: Any, *_: Any, dtype: str = ""
) -> Tensor:
    if len(shape) != len(strides) or len(shape) > _MAX_AXES:
        raise TypeError
    numbers = [offset, *shape, *strides]
    if not all(isinstance(n, int) and 0 <= n < 2**63 for n in numbers):
        raise TypeError
    return Tensor(_expect(storage, Storage), offset, tuple(shape), tuple(strides), dtype)


def _tensor_v3(*arguments: Any) -> Tensor:
    return _tensor(*arguments[:6], dtype=arguments[6].path.split(" ")[1])


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    # Only these kinds of containers are counted before a call.
    if not isinstance(sizes, list | tuple):
        raise TypeError
    return tuple(sizes)


def _dict(pairs: Any = ()) -> dict:
    if not isinstance(pairs, dict | list | tuple):
        raise TypeError
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return {_key(key): value for key, value in pairs}


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    del kind, state  # a subclass of Tensor, and the attributes of its object
    if function.path == "torch._tensor _rebuild_from_type_v2":
        raise TypeError
    return _build(function, _expect(arguments, tuple))  # of a tuple, its values are counted


_BUILD: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils _rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor _rebuild_from_type_v2": _from_type,
    "torch Size": _size,
    "collections OrderedDict": _dict,
    "collections defaultdict": lambda factory=None, pairs=(): _dict(pairs),
}
_NUMPY = ("multiarray scalar", "multiarray _reconstruct", "numeric _frombuffer")
_CONTAINERS = ("set", "frozenset", "list", "dict", "tuple", "int", "float", "bytearray", "complex",
               "object", "slice", "range", "xrange")  # fmt: skip
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_INERT = {
    *("collections Counter", "collections deque", "types SimpleNamespace", "yacs.config CfgNode"),
    *("ml_collections.config_dict.config_dict ConfigDict", "datetime datetime"),
    *("copyreg _reconstructor", "copy_reg _reconstructor", "datetime timedelta"),
    *(f"{module} {name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *("argparse Namespace", "torch device", "torch Tensor", "torch.nn.parameter Parameter"),
    *("numpy dtype", "numpy ndarray", "_codecs encode"),
    *(f"numpy.{core}.{f}" for core in ("core", "_core") for f in _NUMPY),
    *(f"{module} {name}" for module in ("builtins", "__builtin__") for name in _CONTAINERS),
}
# Modules of PyTorch, and of DALL-E, whose tokenizer was released as a whole module.
_MODULES = ("torch.nn.modules.", "dall_e.")
_DTYPES = ("float", "bfloat", "int", "uint", "bool", "double", "half", "long")
_PUSH_ARGUMENT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSH_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_FILL = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "TUPLE", "LIST", "DICT",
         "FROZENSET")  # fmt: skip
_FRAMING = ("PROTO", "FRAME")
