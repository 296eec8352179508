"""How tests compare arrays: within a bound, or bit for bit."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def assert_close(
    ours: Any,
    theirs: Any,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    scaled: float = 0.0,
    floor: float = 0.0,
    about: str = "",
) -> None:
    """Asserts that two arrays, or two trees of arrays, differ by no more than the bounds allow.

    At every element, |ours - theirs| <= atol + rtol |theirs| + scaled max(|theirs|), where the
    maximum is of the whole array and at least `floor`. Where no bound is given, `scaled` is 1e-5.
    A failure names the array by its path in the tree, or by `about`.
    """
    if not (rtol or atol or scaled):
        scaled = 1e-5
    if not isinstance(theirs, Mapping):
        ours, theirs = {about: np.asarray(ours)}, {about: np.asarray(theirs)}
    ours, theirs = _leaves(ours), _leaves(theirs)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        largest = max(float(np.abs(array).max()), floor) if scaled else 0.0
        bound = atol + scaled * largest
        np.testing.assert_allclose(ours[name], array, rtol=rtol, atol=bound, err_msg=name)


def assert_same_bits(ours: Any, theirs: Any) -> None:
    """Asserts that two trees have the same paths, and arrays of equal type, shape and bits."""
    ours, theirs = _leaves(ours), _leaves(theirs)
    assert ours.keys() == theirs.keys()
    differing = [name for name, array in theirs.items() if not _same_bits(ours[name], array)]
    assert not differing


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and one.tobytes() == other.tobytes()


def _leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by path."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {name(path): np.asarray(leaf) for path, leaf in leaves}
