"""The parameters that train: their gradients, their state of the optimizer, and their updates.

The blocks of a model are one stack. If only its last blocks train, the part of a stack that trains
is cut out along the layer axis, so that nothing is computed or kept for the other blocks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import optax
from flax import nnx

from vit_jax.models import zoo
from vit_jax.models.batch_norm import BatchNorm
from vit_jax.models.encoder import TaskModel
from vit_jax.models.lora import BLOCKS
from vit_jax.training import optimizer, state
from vit_jax.training.optimizers import contract
from vit_jax.training.tuning import Tuning

Model = TypeVar("Model", bound=nnx.Module)


def optimizer_of(
    config: optimizer.OptimizerConfig,
    tune: Tuning,
    schedule: optax.Schedule,
    *,
    options: zoo.Options,
    total_steps: int,
) -> tuple[optax.GradientTransformation, "Trained"]:
    """The optimizer of a model with these options, and which of its parameters train.

    Raises ValueError as `optimizer.make_optimizer` and `optimizer.trained` do, and if a table of
    positions that is not trained would decay.
    """
    shapes = state.abstract_params(options)[1]
    mask = optimizer.trained(
        config,
        shapes,
        statistics=state.statistics(options),
        tuned=lambda path: tune.trains(path, options),
    )
    if isinstance(config.rule, contract.WeightDecay) and config.rule.any_decay:
        _check_fixed(config.rule, shapes, mask, options)
    trained = Trained(
        mask=mask,
        frozen_blocks=tune.frozen_blocks(options),
        fixed_statistics=tune.fixed_statistics,
    )
    part = trained.part_of(shapes)
    rule = optimizer.make_optimizer(config, schedule, part, trains=mask, total_steps=total_steps)
    return trained.optimizer(rule), trained


def _check_fixed(rule: contract.WeightDecay, shapes: Any, mask: Any, options: zoo.Options) -> None:
    """Raises ValueError if a table that gets no gradient would be moved by the decay."""
    trees = (contract.paths(shapes), rule.decays(shapes), mask)
    decays = zip(*map(jax.tree.leaves, trees), strict=True)
    fixed = set()
    if getattr(options, "fixed_position", False):
        fixed.add("encoder/position")
    if getattr(options, "decoder", None):
        fixed.add("decoder/position")
    if wrong := [path for path, decay, trains in decays if decay and trains and path in fixed]:
        raise ValueError(
            f"config.optimizer.decay_mask {rule.decay_mask} matches {wrong[0]}, a table of sines"
            " that is not trained: leave it out"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """Which parameters of a nested dict train.

    A part is a nested dict like that of the parameters, in which stacks of blocks lack the first
    `frozen_blocks` layers.
    """

    mask: Any  # a bool for every parameter: whether it trains
    frozen_blocks: int = 0  # blocks of the encoder, from the first, that do not train
    fixed_statistics: bool = False  # whether batch norm uses its running averages in training

    def part_of(self, params: Any) -> Any:
        """The part of a nested dict of arrays or shapes."""
        if not self.frozen_blocks:
            return params
        return jax.tree.map(self._cut, self._stacks(params), params)

    def arrays(self, part: Any) -> list[Any]:
        """The arrays of a part that train."""
        pairs = zip(jax.tree.leaves(part), jax.tree.leaves(self.mask), strict=True)
        return [array for array, trained in pairs if trained]

    def model(self, build: Callable[[Any], Model], params: Any, part: Any) -> Model:
        """The model that `build` makes of the parameters with this part, which alone has gradients.

        It computes without gradient what no trained part needs.
        """
        part = jax.tree.map(_without_gradient, self.mask, part)
        model = build(self._without_cut_stacks(params, part))
        if self.frozen_blocks:
            assert isinstance(model, TaskModel), "only these have blocks that can be frozen"
            blocks = nnx.graphdef(model.encoder.blocks)
            model.encoder.last_blocks = nnx.merge(blocks, part["encoder"]["blocks"])
        if self.fixed_statistics:
            for path, module in nnx.iter_modules(model):
                if isinstance(module, BatchNorm) and path[0] != "head_norm":
                    module.fixed = True
        return model

    def merged(self, params: Any, part: Any) -> Any:
        """The parameters after `part` has changed; the others keep their bits."""
        first = self.frozen_blocks

        def new(trained: bool, is_stack: bool, before: jax.Array, after: jax.Array) -> jax.Array:
            if not trained:
                return before
            return before.at[first:].set(after) if is_stack and first else after

        return jax.tree.map(new, self.mask, self._stacks(params), params, part)

    def optimizer(self, rule: optax.GradientTransformation) -> optax.GradientTransformation:
        """The same rule for whole parameters, with gradients and updates of the part."""
        if not self.frozen_blocks:
            return rule

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return rule.update(updates, state, self.part_of(params))

        return optax.GradientTransformation(lambda params: rule.init(self.part_of(params)), update)

    def _without_cut_stacks(self, params: Any, part: Any) -> Any:
        """The arrays of the part, but whole stacks of `params` where the part has cut ones."""
        if not self.frozen_blocks:
            return part
        stacks = self._stacks(params)
        return jax.tree.map(lambda is_stack, p, q: p if is_stack else q, stacks, params, part)

    def _stacks(self, params: Any) -> Any:
        """A bool for every parameter: whether it is one of the encoder's blocks."""
        return jax.tree.map(lambda path: path.startswith(f"{BLOCKS}/"), contract.paths(params))

    def _cut(self, is_stack: bool, array: Any) -> Any:
        if not is_stack:
            return array
        if isinstance(array, jax.ShapeDtypeStruct):
            shape = (array.shape[0] - self.frozen_blocks, *array.shape[1:])
            return jax.ShapeDtypeStruct(shape, array.dtype, sharding=array.sharding)
        return array[self.frozen_blocks :]


def _without_gradient(trained: bool, array: jax.Array) -> jax.Array:
    return array if trained else jax.lax.stop_gradient(array)
