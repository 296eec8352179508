"""What the user is told where weights are fitted to another number of input channels."""

from vit_jax.models.zoo import Options


def notes(source: Options, target: Options) -> tuple[str, ...]:
    """In words, what `fitting.with_channels` does between two models."""
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
