"""Progressive resolution: images grow in steps during a run, and one set of parameters serves all.

The parameters are those of the model for images of the final size. At a smaller size, the arrays
that depend on the grid are interpolated within the step, and their gradients go to the parameters.
Positions are averaged with antialiasing, as in FlexiViT (arXiv 2212.08013), so that each row trains
at every size.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from flax import nnx, traverse_util

from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.models.interpolation import Methods
from vit_jax.models.zoo import Options
from vit_jax.objectives import Batch, Objective
from vit_jax.training import state

Size = tuple[int, int]  # (height, width)
METHODS = Methods(position="bilinear_antialias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    """The image size of every step: `sizes[i]` before the step `ends[i]`, then the last one."""

    ends: tuple[int, ...]
    sizes: tuple[Size, ...]  # one more than `ends`; the last one is the final size

    def size(self, step: int) -> Size:
        """The size of the images that the step, counted from 0, trains on."""
        return self.sizes[sum(step >= end for end in self.ends)]

    @property
    def note(self) -> str:
        """A line for the user; "" if all images have the final size."""
        if not self.ends:
            return ""
        names = ["x".join(map(str, size)) for size in self.sizes]
        parts = [f"{name} up to step {end}" for name, end in zip(names, self.ends, strict=False)]
        return f"note: training images are {', '.join(parts)}, then {names[-1]}"


def stages(config: Config, *, final: Size, total_steps: int) -> Stages:
    """The stages of a run of this length, for a model whose images have the `final` size.

    Raises ValueError for a height that is not below the final one, or gives no whole width.
    """
    ends, sizes = [], []
    for share, height in config.progressive:
        width = height * final[1] / final[0]
        if not width.is_integer() or height >= final[0]:
            raise ValueError(
                f"config.progressive has the height {height}: it must be below that of the model's"
                f" images {final}, and the width in proportion a whole number"
            )
        # 0.07 * 100 is 7.000000000000001 in double precision, but the stage has 7 steps.
        ends.append(math.ceil(round(share * total_steps, 6)))
        sizes.append((height, int(width)))
    return Stages(ends=tuple(ends), sizes=(*sizes, final))


class Models:
    """The model for every image size of a run, made of the parameters for the final size."""

    def __init__(self, options: Options, graphdef: nnx.GraphDef, stages: Stages) -> None:
        """`graphdef` is that of the final size. Raises ValueError if a size has no model."""
        self._full = options
        self._options = {options.image_size: options}
        self._graphdefs = {options.image_size: graphdef}
        for size in stages.sizes[:-1]:
            try:
                self._options[size] = zoo.change(options, image_size=size)
                self._graphdefs[size] = state.abstract_params(self._options[size])[0]
            except ValueError as error:
                raise ValueError(f"config.progressive: images of {size}: {error}") from error

    def check(
        self, objective: Objective, facts: DataFacts, *, frozen: Mapping[str, Options]
    ) -> None:
        """Raises ValueError if the objective cannot train at one of the sizes.

        `frozen` has the options of the frozen models as they are in their files.
        """
        fitted = objective.fit_frozen(self._full, frozen)
        for size, one in self._options.items():
            if size == self._full.image_size:
                continue
            try:
                objective.model(one, facts)
            except ValueError as error:
                raise ValueError(f"config.progressive: images of {size}: {error}") from error
            if objective.fit_frozen(one, frozen) != fitted:
                raise ValueError(
                    f"config.progressive: {' and '.join(frozen)} would need images of another size"
                    " with each size of the images: leave it out"
                )

    def options(self, batch: Batch) -> Options:
        """The options of the model for the images of a batch; full size if it has none."""
        return self._options[self._size(batch)]

    def __call__(self, params: Any, batch: Batch) -> Any:
        """The model for this batch, of a nested dict of parameters for the final size."""
        target = self.options(batch)
        if target != self._full:
            params = resized(params, self._full, target)
        return nnx.merge(self._graphdefs[self._size(batch)], params)

    def _size(self, batch: Batch) -> Size:
        if "image" not in batch:
            return self._full.image_size
        return batch["image"].shape[1], batch["image"].shape[2]


def resized(params: Any, source: Options, target: Options) -> Any:
    """A nested dict of parameters, interpolated to the image size of `target`; differentiable."""
    resize = zoo.family(source).fitting.resize
    flat = traverse_util.flatten_dict(params, sep="/")
    for path, array in flat.items():
        if change := resize(path):
            flat[path] = change(array, source, target, METHODS)
    return traverse_util.unflatten_dict(flat, sep="/")
