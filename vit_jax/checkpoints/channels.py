"""Weights for another number of input channels, as timm's `adapt_input_conv` makes them."""

import numpy as np

from vit_jax.models.zoo import Options


def adapt(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first kernel (h, w, C, D) for images of so many channels.

    One channel takes the sum of all; more take the kernel's in turn, scaled by C / channels, so
    that an image whose channels are all alike gives the same features.
    """
    given = kernel.shape[2]
    if given == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % given] * np.float32(given / channels)


def notes(source: Options, target: Options) -> tuple[str, ...]:
    """In words, what `adapt` does between two models."""
    if source.channels == target.channels:
        return ()
    how = "summed to 1" if target.channels == 1 else f"repeated and scaled for {target.channels}"
    return (
        f"the {source.channels} channels of its first kernel are {how}, as timm does it, and mean"
        " and std are fitted likewise: fine-tune it, for it was not trained so",
    )


def refusal(source: Options, target: Options) -> str:
    """Why weights are not adapted unasked, and how to ask."""
    return (
        f"it takes {source.channels} channels, the model {target.channels}: to sum or repeat those"
        " of its first kernel, as timm does it, give --adapt-channels (load: adapt_channels=True;"
        " a run: config.init_adapt_channels)"
    )
