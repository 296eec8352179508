"""Schedules of the weight decay: the values, where each optimizer adds it, and resumed runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from tests.compare import assert_close
from tests.extending.life import Life
from tests.parts import optimizer_config
from tests.training.test_optimizer import a_model
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.optimizers import OPTIMIZERS, Adam

STEPS = 5
COSINE = {"weight_decay": 0.04, "weight_decay_end": 0.4, "weight_decay_schedule": "cosine"}
LINEAR = {"weight_decay": 0.3, "weight_decay_schedule": "linear"}
DECAYING = [name for name in OPTIMIZERS if OPTIMIZERS[name] is not Adam]


def reference(kind: str, start: float, end: float) -> np.ndarray:
    """The decay of each step; the cosine is that of DINO's `cosine_scheduler`."""
    share = np.arange(STEPS) / STEPS
    if kind == "cosine":
        return end + 0.5 * (start - end) * (1 + np.cos(np.pi * share))
    return start + (end - start) * share


def train(params, gradients, optimizer: OptimizerConfig, rate: float = 0.1):
    """The parameters after each step of a run of `STEPS` steps."""
    tx = make_optimizer(optimizer, lambda step: rate, params, total_steps=STEPS)
    state, found = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append(params)
    return found


@pytest.mark.parametrize("fields", [COSINE, LINEAR], ids=["cosine", "linear"])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_trajectories_are_those_of_numpy(name, fields) -> None:
    """AdamW's decay is beside the update, that of gradient descent is part of the gradient."""
    rng = np.random.default_rng(0)
    weight, gradients = rng.normal(size=4), rng.normal(size=(STEPS, 4))
    optimizer = optimizer_config(name=name, clip_norm=0.0, **fields)
    found = train(
        {"kernel": jnp.asarray(weight, jnp.float32), "bias": jnp.ones(2)},
        [{"kernel": jnp.asarray(g, jnp.float32), "bias": jnp.zeros(2)} for g in gradients],
        optimizer,
    )
    decays = reference(
        fields["weight_decay_schedule"], fields["weight_decay"], fields.get("weight_decay_end", 0)
    )
    first, second, trace = np.zeros(4), np.zeros(4), np.zeros(4)
    for step, (gradient, decay) in enumerate(zip(gradients, decays, strict=True)):
        if name == "sgd":
            trace = 0.9 * trace + gradient + decay * weight
            weight = weight - 0.1 * trace
        else:
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            root = np.sqrt(second / (1 - 0.999 ** (step + 1)))
            update = first / (1 - 0.9 ** (step + 1)) / (root + 1e-8)
            weight = weight - 0.1 * (update + decay * weight)
        assert_close(found[step]["kernel"], weight, scaled=1e-5)
        np.testing.assert_array_equal(found[step]["bias"], 1)


@pytest.mark.parametrize("name", DECAYING)
def test_a_schedule_from_a_decay_to_itself_is_that_decay(name) -> None:
    fields = {"name": name, "weight_decay": 0.2, "decay_factors": (("^head", 3.0),)}
    gradients = [
        jax.tree.map(lambda x, s=step: 0.01 * jnp.sin(s + x), a_model()) for step in range(3)
    ]
    params = jax.tree.map(lambda x: 1 + jnp.arange(x.size).reshape(x.shape) / x.size, a_model())
    constant = train(params, gradients, optimizer_config(**fields))[-1]
    level = fields | {"weight_decay_schedule": "cosine", "weight_decay_end": 0.2}
    scheduled = train(params, gradients, optimizer_config(**level))[-1]
    assert_close(scheduled, constant, rtol=1e-6)
    rising = train(params, gradients, optimizer_config(**level | {"weight_decay_end": 2.0}))[-1]
    assert np.any(rising["head"]["kernel"] != constant["head"]["kernel"])


@pytest.mark.parametrize("name", DECAYING)
def test_factors_and_schedules_leave_frozen_parameters_alone(name) -> None:
    optimizer = optimizer_config(
        name=name,
        decay_factors=(("^head", 3.0),),
        rate_factors=(("kernel$", 0.5),),
        frozen=("^blocks/",),
        **COSINE,
    )
    gradients = [jax.tree.map(jnp.ones_like, a_model())] * 2
    moved = train(a_model(), gradients, optimizer)[-1]
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(moved["blocks"]["fc"][name], 1)
        assert np.all(moved["head"][name] != 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight_decay_end": 0.4}, r"weight_decay_end is 0.4, but the decay is constant: set"),
        (COSINE | {"weight_decay_end": -0.4}, r"weight_decay_end is -0.4: it must not be neg"),
        (LINEAR | {"weight_decay_end": float("nan")}, r"weight_decay_end is nan"),
    ],
)
def test_mistakes_are_refused_by_name(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(optimizer_config(**fields), lambda step: 1.0, a_model(), total_steps=5)


def test_a_run_with_a_schedule_goes_on_with_the_same_bits(tmp_path, monkeypatch) -> None:
    fields = [f"--config.optimizer.{name}={value}" for name, value in COSINE.items()]
    whole = Life(tmp_path, monkeypatch).lives(*fields)
    counts = [x for path, x in runs.arrays(whole).items() if path.endswith("inner_state/count")]
    assert counts == [4]
