"""One training step as a pure function: (state, batch) -> (next state, metrics)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vit_jax.config import Config
from vit_jax.data import augment
from vit_jax.objectives import classification
from vit_jax.training import optimizer as optimizer_lib
from vit_jax.training.state import State

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Prepare = Callable[..., Batch]  # (batch of the pipeline, key) -> what the loss takes
Loss = Callable[..., jax.Array]  # (model, prepared batch, key) -> mean loss, float32 ()


def make_train_step(
    graphdef: nnx.GraphDef,
    *,
    prepare: Prepare,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    abstract: State,
    accumulate: int = 1,
    ema: float = 0.0,
    ema_begins: bool = True,
) -> jax.stages.Wrapped:
    """The jitted step: (state, batch) -> (next state, metrics). It donates the state.

    Its metrics are loss, grad_norm (before clipping), param_norm (after the step) and
    learning_rate.

    `accumulate` micro-batches are differentiated one after the other; their mean gradient stays
    sharded as the parameters are. The results do not depend on the mesh beyond rounding.
    With `ema_begins` the first step makes the average a copy of the parameters.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def gradients(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        def loss_of(params: Any) -> jax.Array:
            return loss(nnx.merge(graphdef, params), batch, key=key)

        value, grads = jax.value_and_grad(loss_of)(params)
        return value, jax.lax.with_sharding_constraint(grads, shardings["params"])

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.wrap_key_data(state["key"])
        step_key = jax.random.fold_in(key, state["step"])
        params = state["params"]
        batch = prepare(batch, key=key)
        value, grads = _mean_over(gradients, params, batch, step_key, parts=accumulate)
        updates, opt_state = optimizer.update(grads, state["opt_state"], params)
        new_params = optax.apply_updates(params, updates)
        new_state = state | {
            "params": new_params,
            "opt_state": opt_state,
            "step": state["step"] + 1,
        }
        if ema:
            updates_seen = state["step"] + (0 if ema_begins else 1)
            new_state["ema"] = optimizer_lib.ema_update(
                state["ema"], new_params, decay=ema, step=updates_seen
            )
        metrics = {
            "loss": value,
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(new_params),
            "learning_rate": jnp.asarray(schedule(state["step"]), jnp.float32),
        }
        return new_state, metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def classification_step_parts(config: Config, *, num_classes: int) -> tuple[Prepare, Loss]:
    """Augmentation on the device, and the cross-entropy of the logits."""

    def prepare(batch: Batch, *, key: jax.Array) -> Batch:
        targets = classification.one_hot_targets(
            batch["label"],
            num_classes=num_classes,
            smoothing=config.objective.label_smoothing,
        )
        images, targets = augment.augment(
            batch["image"],
            targets,
            batch["position"],
            key=key,
            data=config.data,
            dtype=jnp.dtype(config.model.dtype),
        )
        return {"images": images, "targets": targets}

    def loss(model: Any, batch: Batch, *, key: jax.Array) -> jax.Array:
        logits = model(batch["images"], key=key)
        return classification.loss(logits, batch["targets"], kind=config.objective.loss)

    return prepare, loss


def _mean_over(
    gradients: Callable[..., tuple[jax.Array, Any]],
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    parts: int,
) -> tuple[jax.Array, Any]:
    """Mean loss and gradients of `parts` micro-batches, each differentiated by itself."""
    if parts == 1:
        return gradients(params, batch, key)

    def split(x: jax.Array) -> jax.Array:
        # Every part takes each `parts`-th row, so that no row leaves its device.
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients(params, *part)), None

    micro = jax.tree.map(split, batch)
    keys = jax.random.split(key, parts)
    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), params))
    total, _ = jax.lax.scan(add, zeros, (micro, keys))
    return jax.tree.map(lambda x: x / parts, total)
