"""The options of a config that say when checkpoints are saved."""

import dataclasses

from vit_jax.duration import Duration


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are saved, and which are kept."""

    every: Duration = Duration(percent=10.0)  # how often one is saved; unset: only at the end
    keep_last: int = 2  # number of latest checkpoints to keep
    keep_best: int = 1  # number of best checkpoints by `metric` to keep, besides the latest
    # The metric of the best checkpoint: METRIC of the held-out measure, or EVALUATOR/METRIC;
    # ema_METRIC is that of the averaged parameters. Unset: the objective's first metric on held-out
    # data, which is top1 for classifiers.
    metric: str = ""
