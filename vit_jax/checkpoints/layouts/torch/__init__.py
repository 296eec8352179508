"""Entries of PyTorch's layers, for any names of arrays.

PyTorch's weight of a linear layer is (out, in), that of a convolution (out, in, height, width).
"""

from collections.abc import Sequence

import numpy as np

from vit_jax.checkpoints.layouts.table import Entry


def norm(path: str, name: str) -> list[Entry]:
    """Entries of a LayerNorm or GroupNorm."""
    return [
        Entry(f"{path}/scale", (f"{name}.weight",)),
        Entry(f"{path}/bias", (f"{name}.bias",)),
    ]


def linear(path: str, name: str, *, bias: bool = True) -> list[Entry]:
    entries = [Entry(f"{path}/kernel", (f"{name}.weight",), _transposed, _transposed_back)]
    return entries + ([Entry(f"{path}/bias", (f"{name}.bias",))] if bias else [])


def conv(path: str, name: str, *, bias: bool = True) -> list[Entry]:
    """Entries of a convolution; our kernel is (height, width, in, out)."""
    entries = [
        Entry(
            f"{path}/kernel",
            (f"{name}.weight",),
            lambda a: a.transpose(2, 3, 1, 0),
            lambda a: (a.transpose(3, 2, 0, 1),),
        )
    ]
    return entries + ([Entry(f"{path}/bias", (f"{name}.bias",))] if bias else [])


def attention_out(path: str, name: str, *, heads: int) -> list[Entry]:
    """Entries of the output projection of attention; our kernel is (H, d, D)."""
    return [
        Entry(
            f"{path}/kernel",
            (f"{name}.weight",),
            lambda a: _of_rank(a, 2).T.reshape(heads, -1, a.shape[0]),
            lambda a: (a.reshape(-1, a.shape[-1]).T,),
        ),
        Entry(f"{path}/bias", (f"{name}.bias",)),
    ]


def separate_qkv(
    path: str, names: Sequence[str], *, heads: int, bias: bool = True, key_bias: bool = True
) -> list[Entry]:
    """Entries of q, k, v in three linear layers; our kernel is (D, 3, H, d), bias (3, H, d)."""
    kernel = Entry(
        f"{path}/kernel",
        tuple(f"{name}.weight" for name in names),
        lambda *parts: np.stack(
            [_of_rank(p, 2).T.reshape(p.shape[1], heads, -1) for p in parts], axis=1
        ),
        lambda a: [a[:, i].reshape(a.shape[0], -1).T for i in range(3)],
    )
    kept = (0, 1, 2) if key_bias else (0, 2)

    def join(*parts: np.ndarray) -> np.ndarray:
        fused = np.zeros((3, heads, parts[0].size // heads), parts[0].dtype)
        for i, part in zip(kept, parts, strict=True):
            fused[i] = _of_rank(part, 1).reshape(heads, -1)
        return fused

    biases = Entry(
        f"{path}/bias",
        tuple(f"{names[i]}.bias" for i in kept),
        join,
        lambda a: [a[i].reshape(-1) for i in kept],
    )
    return [kernel, biases] if bias else [kernel]


def fused_qkv(path: str, weight: str, bias: str | Sequence[str], *, heads: int) -> list[Entry]:
    """Entries of q, k, v in one linear layer with `weight` (3 D, D).

    `bias` is the name of one array (3 D), the two names of the biases of q and v, or "".
    """
    kernel = Entry(
        f"{path}/kernel",
        (weight,),
        lambda a: _of_rank(a, 2).T.reshape(a.shape[1], 3, heads, -1),
        lambda a: (a.reshape(a.shape[0], -1).T,),
    )
    if not bias:
        return [kernel]
    if isinstance(bias, str):
        whole = Entry(
            f"{path}/bias",
            (bias,),
            lambda a: _of_rank(a, 1).reshape(3, heads, -1),
            lambda a: (a.reshape(-1),),
        )
        return [kernel, whole]
    parts = Entry(
        f"{path}/bias",
        tuple(bias),
        lambda q, v: np.stack([_of_rank(q, 1), np.zeros_like(q), v]).reshape(3, heads, -1),
        lambda a: (a[0].reshape(-1), a[2].reshape(-1)),
    )
    return [kernel, parts]


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.T


def _transposed_back(array: np.ndarray) -> tuple[np.ndarray]:
    return (array.T,)


def _of_rank(array: np.ndarray, rank: int) -> np.ndarray:
    """The array unchanged. Raises ValueError for another rank, which reshaping would hide."""
    if array.ndim != rank:
        raise ValueError(f"an array has rank {array.ndim}, expected {rank}")
    return array
