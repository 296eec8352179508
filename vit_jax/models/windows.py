"""Windows of a feature map: padding, shifting, cutting, joining, and the mask of the attention.

Shapes: B batch, h x w features, D width, W windows of N = rows x columns features. If windows do
not tile the features, released Swins pad in one of two ways. "after_shift" (timm): features are
shifted, then padded; an axis that one window covers is not shifted. "before_shift" (Hugging Face):
features are padded, then shifted; if one window covers an axis, neither axis is shifted. Images are
padded too, to whole patches.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.positions import Grid

Padding = Literal["after_shift", "before_shift"]


def shrink(window: Grid, grid: Grid, padding: Padding) -> Grid:
    """The window for features `grid`: smaller than `window` if there are fewer features."""
    if padding == "before_shift":
        side = min(grid)
        return (side, side) if side <= min(window) else window
    return min(window[0], grid[0]), min(window[1], grid[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows of one stage. Raises ValueError if a window is larger than the features."""

    grid: Grid  # (h, w)
    window: Grid
    padding: Padding

    def __post_init__(self) -> None:
        if any(g < w for g, w in zip(self.grid, self.window, strict=True)):
            raise ValueError(
                f"a stage has {self.grid} features of these images, fewer than its window"
                f" {self.window}: load the model with their image_size to resize its windows"
            )

    @property
    def shift(self) -> Grid:
        """Half a window, or 0 for an axis that is not shifted."""
        covered = [g <= w for g, w in zip(self.grid, self.window, strict=True)]
        if self.padding == "before_shift" and any(covered):
            covered = [True, True]
        rows, columns = (0 if c else w // 2 for c, w in zip(covered, self.window, strict=True))
        return rows, columns

    @property
    def padded(self) -> Grid:
        rows, columns = (-(-g // w) * w for g, w in zip(self.grid, self.window, strict=True))
        return rows, columns

    def cut(self, x: jax.Array, shifted: jax.Array) -> jax.Array:
        """(B, h, w, D) to (W, B, N, D); `shifted` is 1 to shift and 0 not to."""
        if self.padding == "after_shift":
            x = self._pad(self._roll(x, -shifted))
        else:
            x = self._roll(self._pad(x), -shifted)
        batch, width = x.shape[0], x.shape[3]
        tiles = self._tiles()
        x = x.reshape(batch, *tiles, width).transpose(1, 3, 0, 2, 4, 5)
        return x.reshape(tiles[0] * tiles[2], batch, self._area, width)

    def join(self, x: jax.Array, shifted: jax.Array) -> jax.Array:
        """The inverse of `cut`."""
        batch, width = x.shape[1], x.shape[3]
        down, rows, right, columns = self._tiles()
        x = x.reshape(down, right, batch, rows, columns, width)
        x = x.transpose(2, 0, 3, 1, 4, 5).reshape(batch, *self.padded, width)
        if self.padding == "after_shift":
            return self._roll(self._crop(x), shifted)
        return self._crop(self._roll(x, shifted))

    def mask(self) -> np.ndarray:
        """(W, N, N): -100 between features that only the shift brings into one window, else 0."""
        regions = [
            np.searchsorted([side - window, side - shift], np.arange(side), side="right")
            if shift
            else np.zeros(side, int)
            for side, window, shift in zip(self.padded, self.window, self.shift, strict=True)
        ]
        region = 3 * regions[0][:, None] + regions[1][None, :]
        tiles = region.reshape(self._tiles()).transpose(0, 2, 1, 3).reshape(-1, self._area)
        return np.where(tiles[:, :, None] == tiles[:, None, :], 0.0, -100.0).astype(np.float32)

    @property
    def _area(self) -> int:
        return self.window[0] * self.window[1]

    def _tiles(self) -> tuple[int, int, int, int]:
        (height, width), (rows, columns) = self.padded, self.window
        return height // rows, rows, width // columns, columns

    def _roll(self, x: jax.Array, sign: jax.Array) -> jax.Array:
        for axis, shift in enumerate(self.shift, 1):
            x = jnp.roll(x, sign * shift, axis=axis) if shift else x
        return x

    def _pad(self, x: jax.Array) -> jax.Array:
        more = [(0, p - g) for p, g in zip(self.padded, self.grid, strict=True)]
        return jnp.pad(x, ((0, 0), *more, (0, 0)))

    def _crop(self, x: jax.Array) -> jax.Array:
        return x[:, : self.grid[0], : self.grid[1]]
