"""Optimizers follow the originals; masks, freezing and state layout follow parameter paths."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.compare import assert_close, assert_same_bits
from tests.parts import optimizer_config
from vit_jax import schema
from vit_jax.config import Duration, OptimizerConfig, ScheduleConfig
from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions
from vit_jax.training import trained
from vit_jax.training.optimizer import ema_update, make_optimizer
from vit_jax.training.optimizers import Sgd
from vit_jax.training.schedules import make_schedule
from vit_jax.training.tuning import TUNINGS

OPTIMIZERS = [
    optimizer_config(name="adamw", weight_decay=0.1),
    optimizer_config(name="adam", moment_dtype="bfloat16"),
    optimizer_config(name="sgd", weight_decay=0.1, moment_dtype="bfloat16"),
]


def a_model() -> dict:
    return {
        "blocks": {"fc": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.ones((2, 4))}},
        "head": {"kernel": jnp.ones((4, 5)), "bias": jnp.ones(5)},
    }


def train(params, gradients, optimizer: OptimizerConfig, schedule: optax.Schedule):
    """The parameters after each update, beginning with the given ones."""
    tx = make_optimizer(optimizer, schedule, params)
    state, trajectory = tx.init(params), [params]
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        trajectory.append(params)
    return trajectory


def torch_trajectory(folder):
    """Initial parameters, gradients and expected parameters of a fixture made with PyTorch."""
    io = np.load(folder / "io.npz")
    names = [f"p{i}" for i in range(4)]
    gradients = [{n: io[f"grad{n[1]}_step{s}"] for n in names} for s in range(6)]
    after = [{n: io[f"{n}_after{s + 1}"] for n in names} for s in range(6)]
    return {n: jnp.asarray(io[f"{n}_init"]) for n in names}, gradients, after


def nest(flat: dict) -> dict:
    return jax.tree.map(jnp.asarray, flax.traverse_util.unflatten_dict(flat, sep="/"))


def below(prefix: str, flat: dict) -> dict:
    return {key.removeprefix(prefix): flat[key] for key in flat if key.startswith(prefix)}


@pytest.mark.parametrize(
    ("fixture", "rate", "optimizer"),
    [
        ("torch_adamw_clip1", 1e-2, optimizer_config(weight_decay=0.05)),
        (
            "torch_sgd_momentum",
            0.1,
            optimizer_config(name="sgd", weight_decay=1e-4, clip_norm=0.0),
        ),
    ],
)
def test_optimizer_equals_torch(shared, fixture, rate, optimizer):
    params, gradients, expected = torch_trajectory(shared / "fixtures" / fixture)
    optimizer = optimizer_config(**schema.plain(optimizer) | {"decay_mask": ("",)})  # all of them
    actual = train(params, gradients, optimizer, lambda step: rate)
    for ours, theirs in zip(actual[1:], expected, strict=True):
        for name in theirs:
            assert_close(ours[name], theirs[name], atol=2e-6)


def test_adamw_with_bfloat16_moment_equals_big_vision(shared):
    folder = shared / "fixtures/bv_optim_adam_bv_wd"
    steps, after = np.load(folder / "grads.npz"), np.load(folder / "io.npz")
    params = nest(dict(np.load(folder / "init.npz")))
    schedule = make_schedule(
        ScheduleConfig(warmup=Duration(steps=2)),
        peak=1e-3,
        total_steps=10,
        batch_size=1,
        dataset_size=1,
    )
    # big_vision's decay of 1e-4 is not multiplied by the peak rate of 1e-3.
    optimizer = optimizer_config(b2=0.95, weight_decay=1e-4 / 1e-3, moment_dtype="bfloat16")
    gradients = [nest(below(f"step{s}/", steps)) for s in range(6)]
    actual = train(params, gradients, optimizer, schedule)
    for step in (1, 2, 3, 6):
        flat = flax.traverse_util.flatten_dict(actual[step], sep="/")
        for name, theirs in below(f"params_after_{step}/", after).items():
            assert_close(flat[name], theirs, atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adamw", "adam", "sgd"])
@pytest.mark.parametrize("frozen", [(), ("^blocks/",)], ids=["all", "head only"])
def test_state_of_a_parameter_lies_under_its_path(optimizer, frozen):
    optimizer = dataclasses.replace(optimizer, frozen=frozen)
    shapes = jax.eval_shape(a_model)
    state = jax.eval_shape(make_optimizer(optimizer, lambda step: 1.0, shapes).init, shapes)
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    seen: dict[str, list] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(state):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        owners = [name for name in flat if path.endswith("/" + name)]
        if leaf.shape == ():
            assert path.endswith("/count")
        else:
            (owner,) = owners
            assert leaf.shape == flat[owner].shape
            seen.setdefault(owner, []).append((path.split("/")[-len(owner.split("/")) - 1], leaf))
    trained = {name for name in flat if not (frozen and name.startswith("blocks/"))}
    assert set(seen) == trained  # frozen parameters hold no state
    moments = {"trace"} if isinstance(optimizer.rule, Sgd) else {"mu", "nu"}
    for found in seen.values():
        assert {moment for moment, _ in found} == moments
        dtypes = {moment: leaf.dtype for moment, leaf in found}
        assert dtypes.get("mu", dtypes.get("trace")) == optimizer.rule.moment_dtype
        assert dtypes.get("nu", jnp.float32) == jnp.float32


def test_frozen_parameters_stay_and_do_not_count_in_the_norm():
    params = a_model()
    gradient = jax.tree.map(jnp.zeros_like, params)
    gradient["head"]["bias"] = jnp.array([3.0, 0, 0, 0, 4])  # norm 5
    gradient["blocks"]["fc"]["kernel"] += 1e6
    optimizer = optimizer_config(
        name="sgd", momentum=0.0, weight_decay=0.1, frozen=("^blocks/", "^head/kernel$")
    )
    _, after = train(params, [gradient], optimizer, lambda step: 1.0)
    assert_close(after["head"]["bias"], [0.4, 1, 1, 1, 0.2], scaled=1e-6)
    after["head"].pop("bias"), params["head"].pop("bias")
    assert_same_bits(after, params)


def test_gradients_below_the_norm_are_not_clipped():
    params = {"kernel": jnp.zeros(2)}
    optimizer = optimizer_config(name="sgd", momentum=0.0, clip_norm=6.0)
    _, after = train(params, [{"kernel": jnp.array([3.0, 4])}], optimizer, lambda step: 1.0)
    np.testing.assert_array_equal(after["kernel"], [-3, -4])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_moves_only_the_masked_parameters(name):
    params = a_model()
    gradient = jax.tree.map(jnp.zeros_like, params)
    optimizer = optimizer_config(name=name, weight_decay=0.1, decay_mask=("^head/k",))
    _, after = train(params, [gradient], optimizer, lambda step: 0.5)
    assert_close(after["head"].pop("kernel"), 0.95, scaled=1e-6)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 1), after)


def test_nesterov_needs_momentum():
    optimizer = optimizer_config(name="sgd", nesterov=True, momentum=0.0)
    with pytest.raises(ValueError, match="nesterov is True, and config.optimizer.momentum is 0"):
        optimizer.rule.updates(optax.constant_schedule(1.0), {})


def test_nesterov_looks_ahead():
    params, gradient = {"kernel": jnp.zeros(1)}, {"kernel": jnp.ones(1)}
    optimizer = optimizer_config(name="sgd", nesterov=True)
    trajectory = train(params, [gradient, gradient], optimizer, lambda step: 1.0)
    moves = [-1.9, -(1 + 0.9 * 1.9)]
    assert_close(trajectory[1]["kernel"], moves[0], scaled=1e-6)
    assert_close(trajectory[2]["kernel"], sum(moves), scaled=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_adam_takes_its_own_fields_of_the_config(name):
    """From the formula, with fields so far from the defaults that each of them shows."""
    fields = {"b1": 0.5, "b2": 0.7, "eps": 0.3, "clip_norm": 0.0}
    gradients = np.array([[3.0, -0.1], [1.0, 0.2], [-2.0, 0.4]], np.float32)
    parameter, m, v, expected = np.ones(2), np.zeros(2), np.zeros(2), []
    for step, gradient in enumerate(gradients, start=1):
        m, v = 0.5 * m + 0.5 * gradient, 0.7 * v + 0.3 * gradient**2
        moved = m / (1 - 0.5**step) / (np.sqrt(v / (1 - 0.7**step)) + 0.3)
        parameter = parameter - 0.1 * step * moved
        expected.append(parameter)
    trajectory = train(
        {"bias": jnp.ones(2)},
        [{"bias": jnp.asarray(gradient)} for gradient in gradients],
        optimizer_config(name=name, **fields),
        lambda step: 0.1 * (step + 1),
    )
    for ours, theirs in zip(trajectory[1:], expected, strict=True):
        assert_close(ours["bias"], theirs, scaled=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_sgd_takes_its_own_momentum_and_decays_after_clipping(momentum):
    """The gradient has norm 50 before, 5 after; the decay of 0.2 comes on top of it."""
    fields = {"momentum": momentum, "weight_decay": 0.2, "clip_norm": 5.0}
    params, gradient = {"kernel": jnp.ones(2)}, {"kernel": jnp.array([30.0, 40])}
    trajectory = train(
        params, [gradient] * 2, optimizer_config(name="sgd", **fields), lambda step: 0.1
    )
    parameter, trace = np.ones(2), np.zeros(2)
    for ours in trajectory[1:]:
        trace = momentum * trace + np.array([3.0, 4]) + 0.2 * parameter
        parameter = parameter - 0.1 * trace
        assert_close(ours["kernel"], parameter, scaled=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frozen": ("^block/",)}, r"frozen: '\^block/' matches no parameter.*blocks/fc/kernel"),
        ({"decay_mask": ("kernel$", "wieght")}, r"decay_mask: 'wieght' matches no parameter"),
        ({"frozen": ("(",)}, r"frozen: '\(' is not a regular expression"),
        ({"frozen": ("",)}, r"nothing to train"),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1"),
        ({"name": "sgd", "momentum": 1.0}, r"momentum is 1\.0"),
        ({"clip_norm": -1.0}, r"clip_norm is -1\.0"),
        ({"b2": 1.0}, r"b2 is 1\.0"),
        ({"b1": 1.0}, r"b1 is 1\.0"),
        ({"b1": -0.1}, r"b1 is -0\.1"),
        ({"eps": -1e-8}, r"eps is -1e-08"),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1"),
    ],
)
def test_mistakes_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(optimizer_config(**fields), lambda step: 1.0, a_model())


def test_the_default_decay_mask_may_match_nothing():
    params = {"scale": jnp.ones(2)}
    assert make_optimizer(optimizer_config(), lambda step: 1.0, params).init(params)


def test_ema_equals_timm(shared):
    io = np.load(shared / "fixtures/timm_ema/io.npz")
    ema = {"w": jnp.asarray(io["w0"])}
    for step in range(5):
        ema = ema_update(ema, {"w": io[f"w{step + 1}"]}, decay=0.9, step=step)
        assert_close(ema["w"], io[f"plain_ema_after{step + 1}"], atol=5e-7)


def test_a_warmed_up_ema_equals_timm(shared):
    io = np.load(shared / "fixtures/timm_ema/io.npz")
    ema = {"w": jnp.asarray(io["w0"])}
    for step in range(5):
        new = {"w": io[f"w{step + 1}"]}
        ema = ema_update(ema, new, decay=0.9, step=step, warmup=2 / 3)
        assert_close(ema["w"], io[f"warmup_ema_after{step + 1}"], atol=5e-7)


def test_ema_stays_exact_over_many_updates():
    rng = np.random.default_rng(0)
    weights = np.linspace(0.3, 1.4, 64) + 0.001 * rng.normal(size=(30_000, 64))
    expected = weights[0]
    for w in weights:
        expected = 0.9999 * expected + 0.0001 * w

    def update(ema, step_and_weights):
        step, w = step_and_weights
        return ema_update(ema, w, decay=0.9999, step=step), None

    sequence = (jnp.arange(len(weights)), jnp.asarray(weights, jnp.float32))
    actual, _ = jax.lax.scan(update, jnp.zeros(64), sequence)
    assert_close(actual, expected, scaled=2e-5)


@pytest.mark.parametrize(("mask", "table"), [("^decoder/", "decoder"), ("^enc.*n$", "encoder")])
def test_a_table_of_positions_that_is_not_trained_must_not_decay(mask, table) -> None:
    sizes = {"width": 16, "depth": 1, "mlp_dim": 16, "num_heads": 2, "image_size": (32, 32)}
    decoder = DecoderOptions(width=8, depth=1, mlp_dim=8, num_heads=2)
    options = zoo.options("MAE-pretrain-B/16", **sizes, decoder=decoder)

    def make(pattern: str) -> None:
        config = optimizer_config(name="adamw", weight_decay=0.1, decay_mask=(pattern,))
        tune = TUNINGS["full"]()
        trained.optimizer_of(config, tune, lambda step: 0.1, options=options, total_steps=1)

    with pytest.raises(ValueError, match=f"matches {table}.*that is not trained: leave it out"):
        make(mask)
    make("kernel$")
