"""What every picture shares: how it says that a model or a run has nothing to draw."""


class NoPicture(ValueError):
    """The picture does not exist for this model or run. The message says why."""
