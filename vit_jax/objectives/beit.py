"""BEiT: visual tokens of hidden patches, predicted from the visible patches.

"BEiT: BERT Pre-Training of Image Transformers" (arXiv 2106.08254), section 2, and its code. Shapes:
B images, N patches, n the largest number of hidden patches, V visual tokens of the codebook.

What differs from the original: it crops an image file once and resizes the crop twice, for the
model and for the tokenizer. Here the augmented image of the model is resized for the tokenizer, on
the devices, by the same interpolation (Lanczos) to the same size.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from vit_jax.data.augment import at
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.models.dvae import DVAEOptions
from vit_jax.models.masked_image_model import MaskedImageModelOptions
from vit_jax.models.sharding import batch_axes
from vit_jax.models.zoo import Options
from vit_jax.objectives.contract import (
    Batch,
    Direction,
    Frozen,
    FrozenModel,
    Loss,
    Objective,
    Restored,
)
from vit_jax.objectives.masked_patch import masked_image_model
from vit_jax.objectives.pixels import patches, places_of

TOKENIZER = "tokenizer"  # its name among the frozen models
_STREAM = 3  # the random stream of the masks; the augmentations have other numbers
_ATTEMPTS = 10  # failed attempts in a row to place a block, after which a mask is finished
_MOST_ATTEMPTS = 1000  # the same, to place the first block
_AT_ONCE = 8  # attempts between two questions whether masks are unfinished
_ASPECT = (math.log(0.3), math.log(1 / 0.3))  # of a block: height by width


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedImageModeling(Objective):
    """Predicts the visual tokens that a frozen tokenizer gives to hidden patches."""

    tokenizer: str = ""  # a run of a discrete VAE, or a released file such as DALL-E's encoder.pkl
    hidden: int = 75  # largest number of hidden patches of an image; some images have fewer
    smallest_block: int = 16  # patches of the smallest block of hidden patches
    largest_block: int = 0  # largest number of patches that a block adds; 0: `hidden`

    metrics: ClassVar[Mapping[str, Direction]] = {"accuracy": "max", "loss": "min"}
    exact_images: ClassVar[bool] = True  # the tokenizer sees the images too

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"config.objective.hidden is {self.hidden}: it must be positive")
        if self.largest_block < 0:
            raise ValueError(
                f"config.objective.largest_block is {self.largest_block}: it must not be negative"
            )
        if not 1 <= self.smallest_block <= self._largest:
            raise ValueError(
                f"config.objective.smallest_block is {self.smallest_block}: it must be from 1 to"
                f" {self._largest}, the largest block"
            )

    @property
    def _largest(self) -> int:
        return min(self.largest_block or self.hidden, self.hidden)

    def check_kind(self, base: Options) -> None:
        masked_image_model(base, objective="beit")

    def model(self, base: Options, facts: DataFacts) -> Options:
        options = masked_image_model(base, objective="beit")
        rows, columns = options.grid
        if self.hidden >= rows * columns:
            raise ValueError(
                f"config.objective.hidden is {self.hidden}, but the image has only {rows} x"
                f" {columns} patches: hide fewer of them, or use smaller patches"
            )
        if not _can_be_placed(options.grid, smallest=self.smallest_block, most=self._largest):
            raise ValueError(
                f"config.objective.smallest_block is {self.smallest_block}, but no such block fits"
                f" into {rows} x {columns} patches: make it smaller"
            )
        return options

    def frozen_models(self) -> Mapping[str, FrozenModel]:
        tokenizer = FrozenModel(
            self.tokenizer, TOKENIZER, has_classes=False, interpolation="lanczos3"
        )
        return {TOKENIZER: tokenizer}

    def fit_frozen(self, options: Options, frozen: Mapping[str, Options]) -> Mapping[str, Options]:
        """The tokenizer for images that have a visual token for each patch."""
        assert isinstance(options, MaskedImageModelOptions), "made by `model`"
        tokenizer = frozen[TOKENIZER]
        if not isinstance(tokenizer, DVAEOptions):
            raise ValueError(
                f"config.objective.{TOKENIZER} ({self.tokenizer}) is a {tokenizer.kind}, which has"
                " no visual tokens: name a discrete VAE, such as a run of configs/dvae.py"
            )
        if tokenizer.vocabulary != options.mim_classes:
            raise ValueError(
                f"config.objective.{TOKENIZER} has {tokenizer.vocabulary} visual tokens, but the"
                f" model predicts one of {options.mim_classes}: set"
                f" --config.model.mim_classes={tokenizer.vocabulary}"
            )
        rows, columns = options.grid
        size = rows * tokenizer.stride, columns * tokenizer.stride
        return {TOKENIZER: zoo.change(tokenizer, image_size=size)}

    def prepare(self, batch: Batch, *, options: Any, key: jax.Array) -> Batch:
        key = jax.random.fold_in(key, _STREAM)
        return batch | {"hidden": self._masks(batch["sample_index"], options, key=key)}

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        errors, hits = self._predictions(model, batch, batch["hidden"], frozen, key)
        weights = batch["hidden"].sum(axis=1, dtype=jnp.float32)
        return Loss(errors, weights, {"accuracy": hits})

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, jax.Array]:
        """Means over the hidden patches of an image. Its mask is the same in all evaluations."""
        hidden = self._masks(batch["sample_index"], model.options, key=jax.random.key(_STREAM))
        errors, hits = self._predictions(model, batch, hidden, frozen, None)
        counts = jnp.maximum(hidden.sum(axis=1, dtype=jnp.float32), 1)
        sums = {"accuracy": hits / counts, "loss": errors / counts}
        return {name: jnp.where(batch["mask"], value, 0).sum() for name, value in sums.items()}

    def restored(
        self, model: Any, batch: Batch, *, frozen: Frozen, decode: Callable[..., Any] | None
    ) -> Restored | None:
        """The prediction is decoded from visual tokens: those of visible patches are the true ones.

        None without a `decode`.
        """
        if decode is None:
            return None
        options, images = model.options, batch["image"].astype(jnp.float32)
        hidden = self._masks(batch["sample_index"], options, key=jax.random.key(_STREAM))
        tokens = frozen[TOKENIZER](batch["image"]).argmax(-1)
        best = model.patch_logits(batch["image"], mask=hidden).argmax(-1).reshape(tokens.shape)
        mixed = jnp.where(hidden.reshape(tokens.shape), best, tokens)
        true = patches(images, options.patch_size)
        return Restored(
            jnp.where(hidden[..., None], jnp.nan, true),
            patches(decode(mixed), options.patch_size),
        )

    @property
    def restoring(self) -> str:
        return "all patches are decoded from visual tokens, the true ones where they are visible"

    def _masks(self, sample_index: jax.Array, options: Any, *, key: jax.Array) -> jax.Array:
        """Hidden patches, bool (B, N), of the samples with these indices, uint32 (B, 2)."""

        def make(key: jax.Array, sample_index: jax.Array) -> jax.Array:
            return jax.vmap(lambda index: self._mask(at(key, index), options.grid))(sample_index)

        axes = batch_axes(len(sample_index))
        if not axes:
            return make(key, sample_index)
        # Each device makes the masks of its own rows. Otherwise all devices would have to ask each
        # other after every attempt whether a mask is unfinished.
        make = jax.shard_map(make, in_specs=(P(), P(axes)), out_specs=P(axes), check_vma=False)
        return make(key, sample_index)

    def _mask(self, key: jax.Array, grid: tuple[int, int]) -> jax.Array:
        mask = block_mask(
            key, grid=grid, hidden=self.hidden, smallest=self.smallest_block, most=self._largest
        )
        return mask.reshape(-1)

    def _predictions(
        self, model: Any, batch: Batch, hidden: jax.Array, frozen: Frozen, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropies and correct predictions, each summed over hidden patches, float32 (B,).

        The head is computed for n patches only: the hidden ones, then some visible ones.
        """
        images = batch["image"]
        scores = frozen[TOKENIZER](images)  # (B, rows, columns, V)
        tokens = scores.argmax(-1).reshape(hidden.shape)
        places = places_of(hidden, self.hidden)
        counted, labels = (jnp.take_along_axis(x, places, axis=1) for x in (hidden, tokens))
        logits = model.patch_logits(images, mask=hidden, at=places, key=key)
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = counted & (logits.argmax(-1) == labels)
        return jnp.where(counted, errors, 0).sum(axis=1), hits.sum(axis=1, dtype=jnp.float32)


class _Masking(NamedTuple):
    """An unfinished mask."""

    mask: jax.Array  # bool (rows, columns)
    added: jax.Array  # float32 (): hidden patches
    failures: jax.Array  # int32 (): attempts in a row that placed no block
    attempts: jax.Array  # int32 (): all attempts


def block_mask(
    key: jax.Array,
    *,
    grid: tuple[int, int],
    hidden: int,
    smallest: int,
    most: int,  # largest number of patches that a block adds
) -> jax.Array:
    """Blocks of hidden patches, bool (rows, columns): as many as fit, at most `hidden` patches.

    As BEiT's MaskingGenerator: the area of a block is uniform between `smallest` and what is left
    of `hidden`, its aspect log-uniform, its place uniform. A block counts if it is lower and
    narrower than the grid and adds some patches, but no more than are left. Ten attempts in a row
    without such a block end the mask. So some masks have fewer patches than `hidden`. Only an empty
    mask, which the original makes very rarely, gets more attempts.
    """
    rows, columns = grid
    # As floats, like the draws. All numbers are small integers, which floats hold exactly.
    row, column = jnp.arange(1.0 * rows)[:, None], jnp.arange(1.0 * columns)[None]

    def unfinished(state: _Masking) -> jax.Array:
        patient = (state.added == 0) & (state.failures < _MOST_ATTEMPTS)
        return (state.added < hidden) & ((state.failures < _ATTEMPTS) | patient)

    def attempt(state: _Masking) -> _Masking:
        area, aspect, top, left = jax.random.uniform(jax.random.fold_in(key, state.attempts), (4,))
        left_over = jnp.minimum(hidden - state.added, most)
        area = smallest + area * (left_over - smallest)
        aspect = jnp.exp(_ASPECT[0] + aspect * (_ASPECT[1] - _ASPECT[0]))
        height, width = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
        top, left = jnp.floor(top * (rows - height + 1)), jnp.floor(left * (columns - width + 1))
        block = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
        added = jnp.sum(block & ~state.mask, dtype=jnp.float32)
        fits = (height < rows) & (width < columns) & (added > 0) & (added <= left_over)
        return _Masking(
            state.mask | (block & fits),
            state.added + jnp.where(fits, added, 0),
            jnp.where(fits, 0, state.failures + 1),
            state.attempts + 1,
        )

    def attempt_if_unfinished(_: jax.Array, state: _Masking) -> _Masking:
        goes_on = unfinished(state)
        return jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), attempt(state), state)

    def attempts(state: _Masking) -> _Masking:
        # A GPU's host waits for the answer to each question of the outer loop, so few are asked.
        return jax.lax.fori_loop(0, _AT_ONCE, attempt_if_unfinished, state)

    start = _Masking(jnp.zeros(grid, bool), jnp.float32(0), jnp.int32(0), jnp.int32(0))
    return jax.lax.while_loop(unfinished, attempts, start).mask


def _can_be_placed(grid: tuple[int, int], *, smallest: int, most: int) -> bool:
    """Whether a block of the smallest area, of any aspect, fits into an empty grid."""
    aspects = np.exp(np.linspace(*_ASPECT, 101))
    heights, widths = (np.round(np.sqrt(smallest * a)) for a in (aspects, 1 / aspects))
    fits = (heights < grid[0]) & (widths < grid[1]) & (heights * widths > 0)
    return bool(np.any(fits & (heights * widths <= most)))
