"""A discrete variational autoencoder: images to visual tokens of a codebook, and back.

"Zero-Shot Text-to-Image Generation" (arXiv 2102.12092, appendix A) and the encoder and decoder of
its code. Shapes: B batch, H and W pixels, h and w rows and columns of tokens, V tokens of the
codebook, C channels of images, F channels of features. Images have the value range of the model's
preprocessing: `MEAN` and `STD` put pixels into [0.1, 0.9], where the likelihood is defined.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import fitting, limits
from vit_jax.models.blocks import in_order, numbered
from vit_jax.models.model import Model, ModelOptions
from vit_jax.models.pooling import max_pool
from vit_jax.models.preprocessing import check_images

MARGIN = 0.1  # pixels in [0, 1] are mapped to [MARGIN, 1 - MARGIN]
MEAN, STD = (-MARGIN / (1 - 2 * MARGIN),) * 3, (1 / (1 - 2 * MARGIN),) * 3  # the same mapping
MOST_GROUPS, MOST_BLOCKS = 12, 100  # far above every published model


@dataclasses.dataclass(frozen=True, kw_only=True)
class DVAEOptions(ModelOptions):
    """A discrete VAE, which takes images of any size that its stride divides."""

    hidden: int = 256  # channels of the first group; each group of the encoder has twice as many
    groups: int = 4  # groups of blocks; between two groups the resolution is halved
    blocks: int = 2  # blocks of each group
    vocabulary: int = 8192  # tokens of the codebook
    code_width: int = 128  # length of the vector of a token, the input of the decoder
    reconstructs: bool = True  # False: without the decoder, as the tokenizer of a BEiT

    def __post_init__(self) -> None:
        limits.check(self)
        for name in ("channels", "hidden", "groups", "blocks", "vocabulary", "code_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        if self.groups > MOST_GROUPS or self.blocks > MOST_BLOCKS:
            raise ValueError(
                f"groups is {self.groups} and blocks {self.blocks}: they must be at most"
                f" {MOST_GROUPS} and {MOST_BLOCKS}"
            )
        if self.hidden % 4:
            raise ValueError(f"hidden is {self.hidden}: it must be a multiple of 4")
        widest = self.hidden * 2 ** (self.groups - 1)
        limits.check_parameters(self.groups * self.blocks * 4 * widest**2)
        if any(side < 1 or side % self.stride for side in self.image_size):
            raise ValueError(
                f"image_size is {self.image_size}: both sides must be multiples of {self.stride},"
                f" the pixels of a visual token of {self.groups} groups"
            )

    @property
    def stride(self) -> int:
        """Pixels of a side of a visual token."""
        return 2 ** (self.groups - 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of visual tokens."""
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    @property
    def feature_size(self) -> int:
        return self.hidden * self.stride

    @property
    def kind(self) -> str:
        return "discrete VAE"

    def _input_and_output(self) -> tuple[str, str]:
        height, width = self.image_size
        return f"{height}x{width} pixels", f"{self.vocabulary} visual tokens"


class DVAE(Model):
    """`model(images)` returns logits of visual tokens, `model.decode` the pixels of tokens."""

    def __init__(self, options: DVAEOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        widths = tuple(options.hidden * 2**group for group in range(options.groups))
        self.encoder = Network(
            options,
            ends=(options.channels, options.vocabulary),
            sides=(7, 3, 1),
            widths=(options.hidden, *widths),
            rngs=rngs,
        )
        if options.reconstructs:
            self.decoder = Network(
                options,
                ends=(options.vocabulary, 2 * options.channels),
                sides=(1, 1, 3),
                widths=(options.code_width, *reversed(widths)),
                rngs=rngs,
            )

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Logits (B, h, w, V) float32 of images (B, H, W, C) of any size; `key` is not used."""
        del key  # there is no dropout, but every model takes a key
        return self.encoder.output(self._encoded(images))

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The mean over all tokens of the input of the last layer (B, F) float32."""
        del key
        return self._encoded(images).mean(axis=(1, 2))

    def decode(self, tokens: jax.Array) -> jax.Array:
        """Parameters of the pixels (B, H, W, 2 C) float32, of probabilities of tokens (B, h, w, V).

        The first C are the logits of pixels in [0.1, 0.9], the last C the logarithms of their
        deviations.
        """
        x = self.decoder.input(tokens)
        groups = self.options.groups
        for number in range(1, groups + 1):
            x = self.decoder.group(number, x)
            x = x if number == groups else x.repeat(2, axis=1).repeat(2, axis=2)
        return self.decoder.output(jax.nn.relu(x.astype(jnp.float32)))

    def rebuilt(self, images: jax.Array) -> jax.Array | None:
        """Pixels in [0, 1] (B, H, W, C) float32, made of the most likely tokens of the images."""
        return self.decoded(self.visual_tokens(images))

    def decoded(self, tokens: jax.Array) -> jax.Array | None:
        if not self.options.reconstructs:
            return None
        return pixels(self.decode(jax.nn.one_hot(tokens, self.options.vocabulary)))

    def visual_tokens(self, images: jax.Array) -> jax.Array:
        """The most likely tokens, int32 (B, h, w), of images (B, H, W, C)."""
        return self(images).argmax(axis=-1)

    def _encoded(self, images: jax.Array) -> jax.Array:
        """The input of the last layer of the encoder (B, h, w, F) float32."""
        options = self.options
        check_images(images, channels=options.channels)
        if any(side % options.stride for side in images.shape[1:3]):
            raise ValueError(
                f"images are {tuple(images.shape)}: height and width must be multiples of"
                f" {options.stride}"
            )
        x = self.encoder.input(images.astype(jnp.dtype(options.dtype)))
        for number in range(1, options.groups + 1):
            x = self.encoder.group(number, x)
            x = x if number == options.groups else max_pool(x, 2, stride=2, pads=[(0, 0)] * 2)
        return jax.nn.relu(x.astype(jnp.float32))


def pixels(outputs: jax.Array) -> jax.Array:
    """Pixels in [0, 1] (B, H, W, C) of outputs (B, H, W, 2 C) of `DVAE.decode`."""
    mapped = jax.nn.sigmoid(outputs[..., : outputs.shape[-1] // 2])
    return jnp.clip((mapped - MARGIN) / (1 - 2 * MARGIN), 0, 1)


class Network(nnx.Module):
    """The parameters of an encoder or a decoder: a first layer, groups of blocks, a last layer."""

    def __init__(
        self,
        options: DVAEOptions,
        *,
        ends: tuple[int, int],  # channels of the input and of the output
        sides: tuple[int, int, int],  # kernels: first layer, first and last layer of a block
        widths: tuple[int, ...],  # channels after the first layer, and of each group
        rngs: nnx.Rngs,
    ) -> None:
        self.input = _conv(sides[0], ends[0], widths[0], dtype=options.dtype, rngs=rngs)
        for number, width in enumerate(widths[1:], 1):
            before = (widths[number - 1], *(width,) * (options.blocks - 1))
            blocks = [Block(given, width, options, sides[1:], rngs=rngs) for given in before]
            setattr(self, f"group{number}", numbered(blocks))
        self.output = _conv(1, widths[-1], ends[1], dtype="float32", rngs=rngs)

    def group(self, number: int, x: jax.Array) -> jax.Array:
        """Runs a group of blocks, counted from 1."""
        for block in in_order(getattr(self, f"group{number}")):
            x = block(x)
        return x


class Block(nnx.Module):
    """Four convolutions, each after a ReLU; their small output is added to the input."""

    def __init__(
        self,
        before: int,
        width: int,
        options: DVAEOptions,
        sides: tuple[int, int],  # kernels of the first and the last convolution
        *,
        rngs: nnx.Rngs,
    ) -> None:
        inner = width // 4
        common: dict[str, Any] = {"dtype": options.dtype, "rngs": rngs}
        self.conv1 = _conv(sides[0], before, inner, **common)
        self.conv2 = _conv(3, inner, inner, **common)
        self.conv3 = _conv(3, inner, inner, **common)
        self.conv4 = _conv(sides[1], inner, width, **common)
        if before != width:
            self.proj = _conv(1, before, width, **common)
        self.gain = 1 / (options.groups * options.blocks) ** 2

    def __call__(self, x: jax.Array) -> jax.Array:
        residual = self.proj(x) if hasattr(self, "proj") else x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(jax.nn.relu(x))
        return residual + self.gain * x


def _conv(side: int, inputs: int, outputs: int, *, dtype: str, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        kernel_size=(side, side),
        dtype=jnp.dtype(dtype),
        kernel_init=nnx.initializers.variance_scaling(1.0, "fan_in", "normal"),
        rngs=rngs,
    )


FITTING = fitting.Fitting(
    optional=("decoder",), resize={"encoder/input/kernel": fitting.fit_channels}.get
)

# Published models: that of DALL-E, whose encoder is BEiT's tokenizer.
NAMES: dict[str, dict[str, Any]] = {"DALL-E-dVAE": {"image_size": (112, 112)}}
