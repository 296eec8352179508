"""The input of a run: from the images of a source to the batches of this process."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.data import featured, pipeline, preprocess, sampling
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batches
from vit_jax.data.record import Source
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import setup
from vit_jax.training.design import Design


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
    """How the images of a run are ordered, decoded, cropped and augmented on the host."""

    design: Design
    source: Source
    order: sampling.Order
    epochs: str  # a note on what an epoch is, or ""
    transform: preprocess.TrainTransform

    def batches(
        self,
        *,
        start: int,
        stop: int,
        bad: BadImages,
        features: featured.Features | None = None,
        tables: Mapping[str, np.ndarray] | None = None,
        interrupted: Callable[[float], bool] = lambda waited: False,
    ) -> Batches:
        """This process's rows of the batches of the steps `start` to `stop - 1`.

        With `features`, batches have these instead of images.
        """
        plan, source = self.design, self.source
        config, data = plan.config, plan.config.data
        common: dict[str, Any] = {
            "seed": config.seed,
            "batch_size": config.batch_size,
            "rows": mesh_lib.local_rows(plan.mesh, config.batch_size),
            "order": self.order,
            "repeats": data.repeats,
            "start_step": start,
            "num_steps": stop,
            "prefetch": data.prefetch,
            "bad": bad,
            "tables": tables,
            "interrupted": interrupted,
        }
        if features is not None:
            return featured.train_batches(features, **common)
        return pipeline.train_batches(
            source,
            self.transform,
            size=plan.stages.size,
            threads=data.threads,
            labelled="label" in plan.objective.inputs,
            **common,
        )


def feed(plan: Design, source: Source) -> Feed:
    """The input of a run that trains on `source`.

    Raises ValueError if the crop, an augmentation or the sampling does not fit the model or data.
    """
    config = plan.config
    transform = preprocess.train_transform(
        config.data,
        size=plan.options.image_size,
        channels=plan.options.channels,
        augmentations=setup.host_augmentations(config),
    )
    for size in plan.stages.sizes:
        config.data.crop.check(size)
    order, epochs = config.data.sampling.order(source, seed=config.seed)
    return Feed(design=plan, source=source, order=order, epochs=epochs, transform=transform)
