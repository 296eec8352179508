"""Kernels stored in bfloat16, or in int8 with a float32 scale for each output channel.

Shapes: a kernel (*S, *I, *O) has S the layers of a stack, I its input axes and O its output axes.
In int8 its values are in [-127, 127], symmetric around zero as ONNX Runtime and TensorRT expect,
and its scales have size 1 along I. The kernel is values times scales.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models import stack, zoo

Kind = Literal["float32", "bfloat16", "int8"]
SCALES = "_scales"  # the array "PATH_scales" has the scales of the kernel at PATH
# Qwix divides by 127.5 and so needs -128 too; a library for these two lines is not worth it.
LARGEST = np.float32(127)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stored:
    """A stored kernel in the place of a float32 array: it becomes one where a layer reads it.

    It is a tree of arrays. So a scan over stacked blocks cuts one layer out of them, and only the
    kernels of this layer are in memory as float32.
    """

    values: jax.Array  # bfloat16 or int8
    scales: jax.Array | None = None  # of int8

    def __jax_array__(self) -> jax.Array:
        values = self.values.astype(jnp.float32)
        return values if self.scales is None else values * self.scales

    def __getitem__(self, where: Any) -> jax.Array:
        return self.__jax_array__()[where]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def dtype(self) -> Any:
        return jnp.dtype(jnp.float32)


nnx.register_data_type(Stored)  # a parameter may hold it


def rounded(options: zoo.Options) -> frozenset[str]:
    """The paths of the kernels that a model in bfloat16 rounds before it computes with them.

    A layer reads its kernel in its `dtype`, unless it has a `kernel_dtype`: a kernel of which a
    function is computed in float32, and then rounded, must not be rounded before.
    """
    found = set()
    model = nnx.merge(*zoo.abstract(options.changed(dtype="bfloat16")))
    for path, layer in nnx.iter_modules(model):
        dtype = getattr(layer, "kernel_dtype", getattr(layer, "dtype", None)) or "float32"
        kernel = isinstance(getattr(layer, "kernel", None), nnx.Param)
        if kernel and jnp.dtype(dtype) == jnp.bfloat16:
            found.add("/".join(map(str, (*path, "kernel"))))
    return frozenset(found)


def stored(
    params: Mapping[str, np.ndarray], *, kind: Kind, rounded: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The arrays to store for float32 parameters, by path.

    In bfloat16 are the kernels at the paths `rounded`, which are those that the model rounds
    anyway, so that storing them loses nothing. In int8 are all kernels: of patch embeddings,
    attention, MLPs, convolutions and heads. Norms, biases, tokens and positions stay float32.
    """
    found: dict[str, np.ndarray] = {}
    for path, array in params.items():
        if kind == "int8" and path.rsplit("/", 1)[-1] == "kernel":
            found[path], found[path + SCALES] = _int8(array, inputs=_inputs(path, array.ndim))
        elif kind == "bfloat16" and path in rounded:
            found[path] = array.astype(jnp.bfloat16)
        else:
            found[path] = array
    return found


def read(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of arrays that `stored` returned, by path: float32, or a `Stored`."""
    scales = {path + SCALES for path in arrays}
    return {
        path: array if array.dtype == jnp.float32 else Stored(array, arrays.get(path + SCALES))
        for path, array in arrays.items()
        if path not in scales
    }


def restored(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float32 parameters of arrays that `stored` returned, by path, on the host.

    Scales that do not fit their kernel are left as an array of their own.
    """
    scales = {path + SCALES: path for path, array in arrays.items() if _fits(path, array, arrays)}
    found = {p: np.asarray(a, np.float32) for p, a in arrays.items() if p not in scales}
    return found | {path: found[path] * arrays[name] for name, path in scales.items()}


def without_scales(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The arrays of whole numbers or booleans that have no scales that fit: no parameter is one."""
    return [p for p, a in arrays.items() if a.dtype.kind in "iub" and not _fits(p, a, arrays)]


def _fits(path: str, array: np.ndarray, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether there are scales of a kernel, with a size of 1 or of the kernel along each axis.

    Scales have no scales of their own.
    """
    scales = arrays.get(path + SCALES)
    if path.endswith(SCALES) or scales is None or scales.ndim != array.ndim:
        return False
    return all(own in (1, size) for own, size in zip(scales.shape, array.shape, strict=True))


def _int8(array: np.ndarray, *, inputs: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The values and scales of a kernel. The scale of a channel that is zero is 1."""
    largest = np.abs(array).max(axis=inputs, keepdims=True)
    scales = np.where(largest > 0, largest / LARGEST, np.float32(1))
    return np.rint(array / scales).astype(np.int8), scales


def _inputs(path: str, ndim: int) -> tuple[int, ...]:
    """The input axes of a kernel."""
    outputs = 3 if path.endswith("qkv/kernel") else 1  # (D, 3, H, d)
    return tuple(range(int(stack.is_stacked(path)), ndim - outputs))
