"""Messages about fitting weights to another number of input channels."""

from vit_jax.models.zoo import Options


def notes(source: Options, target: Options) -> tuple[str, ...]:
    """What `fitting.with_channels` does to the weights of `source`; () where nothing."""
    if source.channels == target.channels:
        return ()
    how = "summed to 1" if target.channels == 1 else f"repeated and scaled for {target.channels}"
    return (
        f"the {source.channels} channels of its first kernel are {how}, as in timm, and mean and"
        " std likewise: the model was not trained for this, fine-tune it",
    )


def refusal(source: Options, target: Options) -> str:
    """Message: weights are adapted to other channels only if the user asks for it."""
    return (
        f"it takes {source.channels} channels, the model {target.channels}: to sum or repeat the"
        " channels of its first kernel, as in timm, give --adapt-channels (load:"
        " adapt_channels=True; a run: config.init_adapt_channels)"
    )
