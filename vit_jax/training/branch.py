"""A run that starts from the whole state of another run: `config.init_state="all"`.

It takes over the parameters, the optimizer state and the average. The schedules, the order of
examples and the seed are new and begin at step 0. Adam's counts are taken over: from 0 its bias
correction would make the first updates several times too large. The counts of the schedules, of the
learning rate and of the weight decay, are reset.
"""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.checkpoints import fallback, run_folder, store
from vit_jax.config import Config, Optimization
from vit_jax.models import zoo
from vit_jax.training import run_config, state, trained

_TAKEN_OVER = ("params", "opt_state", "step", "key")


def first_state(
    config: Config, options: zoo.Options, *, abstract: state.State, class_names: tuple[str, ...]
) -> tuple[state.State, tuple[str, ...]]:
    """The state at step 0, placed as `abstract` says, and lines that report what was taken over.

    Raises ValueError if the other run has another model, other classes or another optimizer, or
    lacks an average that is wanted.
    """
    origin = config.init_from
    if not run_folder.is_run(origin):
        raise ValueError(
            f"config.init_state is 'all', but config.init_from ({origin}) is not a run: a"
            " released file holds parameters only, so leave init_state at 'parameters'"
        )
    card = run_folder.read_card(origin)
    _check_model(origin, card, options, class_names)
    _check_optimizer(config, run_config.read_optimizer(origin), options, abstract)
    if config.ema and not card.average:
        raise ValueError(
            f"config.ema is {config.ema}, but {origin} has no average to start from: set it to 0,"
            " or config.init_state to 'parameters'"
        )
    wanted = {name: abstract[name] for name in (*_TAKEN_OVER, *(("ema",) if config.ema else ()))}
    with store.Store(origin, store.CheckpointConfig(), read_only=True) as saved:
        found = fallback.restore(saved, wanted, "latest", substitute=False)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted)
    restart = jax.jit(_restarted, static_argnames="seed", out_shardings=shardings)
    what = "parameters, optimizer state" + (" and average" if config.ema else "")
    unused = [f"note: the average of {origin} is not used: config.ema is 0"]
    return restart(found.state, seed=config.seed), (
        f"from {origin}, step {found.step}: {what}; the schedule and the order of examples begin"
        " at step 0",
        *(unused if card.average and not config.ema else ()),
        *(f"note: {note}" for note in found.notes),
    )


def _restarted(old: state.State, *, seed: int) -> state.State:
    """The state at step 0, with a new key. Only the counts of schedules are reset."""

    def restart(part: Any) -> Any:
        return part._replace(count=jnp.zeros_like(part.count)) if _is_schedule(part) else part

    key, _ = jax.random.split(jax.random.key(seed))
    return old | {
        "opt_state": jax.tree.map(restart, old["opt_state"], is_leaf=_is_schedule),
        "step": jnp.zeros_like(old["step"]),
        "key": jax.random.key_data(key),
    }


def _is_schedule(part: Any) -> bool:
    """Whether a part of an optimizer state is that of a schedule: of the rate or of the decay.

    Optax has a class for each kind, and their only field is the count. A count of moments stands
    beside the moments.
    """
    return getattr(part, "_fields", ()) == ("count",)


def _check_model(
    origin: str | os.PathLike[str],
    card: run_folder.Card,
    options: zoo.Options,
    names: tuple[str, ...],
) -> None:
    there, here = dataclasses.asdict(card.options), dataclasses.asdict(options)
    differing = [
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in dict.fromkeys((*there, *here))
        if name not in zoo.FREE_FIELDS and there.get(name) != here.get(name)
    ]
    if card.class_names and names and card.class_names != names:
        differing.append("the classes differ, or their order does")
    if differing:
        raise ValueError(
            f"config.init_state is 'all', but {origin} has another model"
            f" ({'; '.join(differing)}): make them the same, or set it to 'parameters'"
        )


def _check_optimizer(
    config: Config, there: Optimization, options: zoo.Options, abstract: state.State
) -> None:
    """Raises ValueError for another rule or another shape of its state.

    The learning rate, the decay and other numbers may differ.
    """
    rule, _ = trained.optimizer_of(
        there.optimizer, there.tune, lambda _: 0.0, options=options, total_steps=1
    )
    theirs = jax.eval_shape(rule.init, state.abstract_params(options)[1])
    if _leaves(theirs) == _leaves(abstract["opt_state"]) and (
        type(config.optimizer.rule) is type(there.optimizer.rule)
    ):
        return
    here = Optimization(optimizer=config.optimizer, tune=config.tune)
    differing = run_config.differences(there, here)
    raise ValueError(
        f"config.init_state is 'all', but {config.init_from} has another optimizer"
        f" ({'; '.join(differing)}): make them the same, or set it to 'parameters'"
    )


def _leaves(tree: Any) -> list[tuple[str, tuple[int, ...], str]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(p), leaf.shape, leaf.dtype.name) for p, leaf in leaves]
