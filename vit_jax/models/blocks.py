"""Numbered blocks of a network, whose kinds or shapes differ, so that they cannot be stacked."""

from collections.abc import Iterator, Sequence
from typing import Any

from flax import nnx


def numbered(blocks: Sequence[Any]) -> nnx.Dict:
    """The blocks by the names block1, block2, ..."""
    return nnx.Dict({f"block{number}": block for number, block in enumerate(blocks, 1)})


def in_order(blocks: nnx.Dict) -> Iterator[Any]:
    """The blocks by their numbers.

    `nnx.merge` sorts the names as texts, so that block10 would come before block2.
    """
    for number in range(1, len(blocks) + 1):
        yield blocks[f"block{number}"]
