"""The state of a run: a plain dict of arrays, created where the mesh says they live.

params     nested dict by path, float32     opt_state  state of the optimizer
ema        Polyak average, if there is one  step       int32 (), updates done
key        uint32 (2,), data of the run's key; every random number folds the step into it
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, traverse_util
from jax.sharding import Mesh

from vit_jax.models import batch_norm, zoo
from vit_jax.parallel import compiler, rules

State = dict[str, Any]


def abstract_params(options: zoo.Options) -> tuple[nnx.GraphDef, Any]:
    """The static part of a model, and the nested dict of its parameters' shapes."""
    graphdef, params = zoo.abstract(options)
    return graphdef, nnx.to_pure_dict(params)


def statistics(options: zoo.Options) -> dict[str, Any]:
    """Shapes of the running averages among a model's parameters, a nested dict; often empty."""
    return batch_norm.statistics(nnx.merge(*abstract_params(options)))


def abstract_state(
    options: zoo.Options, optimizer: optax.GradientTransformation, *, average: bool, mesh: Mesh
) -> State:
    """Shapes, dtypes and shardings of every array of the state; nothing is allocated."""
    state = jax.eval_shape(
        lambda params: _complete(params, optimizer, average=average, key=jax.random.key(0)),
        abstract_params(options)[1],
    )
    return rules.placed_shapes(state, mesh)


def create(
    options: zoo.Options,
    optimizer: optax.GradientTransformation,
    *,
    abstract: State,
    seed: int,
    params: Mapping[str, np.ndarray] | None = None,
) -> State:
    """The first state: newly initialised, or from the flat host arrays `params`.

    Every device computes or receives only its own shards of the arrays.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    average = "ema" in abstract

    def fresh() -> State:
        key, init_key = keys(seed)
        state = nnx.state(zoo.init(options, key=init_key))
        return _complete(nnx.to_pure_dict(state), optimizer, average=average, key=key)

    def given(params: Any) -> State:
        key, _ = keys(seed)
        return _complete(params, optimizer, average=average, key=key)

    if params is None:
        quick = compiler.options(jax.tree.leaves(shardings)[0].mesh)
        return jax.jit(fresh, out_shardings=shardings, compiler_options=quick)()
    nested = traverse_util.unflatten_dict(dict(params), sep="/")
    on_devices = placed(nested, abstract["params"])
    return jax.jit(given, out_shardings=shardings)(on_devices)


def keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """The key of all random numbers of a run, and that of its initial parameters."""
    key, of_parameters = jax.random.split(jax.random.key(seed))
    return key, of_parameters


def placed(params: Any, abstract: Any) -> Any:
    """A tree of host arrays as float32 device arrays, with the shardings of the tree `abstract`."""
    return jax.tree.map(lambda array, leaf: _place(array, leaf.sharding), params, abstract)


def count(tree: Any) -> int:
    """Number of elements of a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _complete(
    params: Any, optimizer: optax.GradientTransformation, *, average: bool, key: jax.Array
) -> State:
    state = {
        "params": params,
        "opt_state": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
        "key": jax.random.key_data(key),
    }
    # A copy: an array that is in the state twice cannot be donated.
    return state | ({"ema": jax.tree.map(jnp.copy, params)} if average else {})


def _place(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    array = np.asarray(array, np.float32)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
