"""The trajectories of optimizers are those of the projects whose recipes use them."""

import contextlib
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.compare import assert_close
from tests.parts import optimizer_config
from tests.training.test_optimizer import below, nest, train
from vit_jax.config import Duration, OptimizerConfig, ScheduleConfig
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.rules import tree_shardings
from vit_jax.training.optimizer import make_optimizer, peak_rate, rate_factors
from vit_jax.training.optimizers import contract, muon
from vit_jax.training.schedules import make_schedule

ALL = ("",)  # a pattern that matches every path


def trajectory(path: Any) -> tuple[Any, list[Any], dict[int, Any]]:
    """Initial parameters, gradients and the parameters after some of the steps of a fixture."""
    io = np.load(path / "io.npz")
    names = [name.removesuffix("_init") for name in io if name.endswith("_init")]
    steps = sum(name.startswith("grad0_step") for name in io)
    gradients = [{n: jnp.asarray(io[f"grad{n[1:]}_step{s}"]) for n in names} for s in range(steps)]
    after = {
        s: {n: io[f"{n}_after{s}"] for n in names}
        for s in range(1, steps + 1)
        if f"p0_after{s}" in io
    }
    return {n: jnp.asarray(io[f"{n}_init"]) for n in names}, gradients, after


def assert_follows(
    path: Any, optimizer: OptimizerConfig, *, rate: float, atol: float, rough: tuple[str, ...] = ()
) -> None:
    """Within `atol`; if some parameters are `rough`, the others within 2e-6."""
    params, gradients, expected = trajectory(path)
    actual = train(params, gradients, optimizer, lambda step: rate)
    for step, theirs in expected.items():
        for name, array in theirs.items():
            within = atol if name in rough or not rough else 2e-6
            assert_close(actual[step][name], array, atol=within, about=name)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_moves_by_the_rate_as_long_as_the_gradient_stays_the_same(name) -> None:
    """In float32, `1 - b2 ** step` is 2e-5 too small, which would make each move 1e-5 too short."""
    optimizer = optimizer_config(name=name, clip_norm=0.0)
    gradient = {"kernel": jnp.asarray([0.5, -3.0])}
    trajectory = train({"kernel": jnp.zeros(2)}, [gradient] * 50, optimizer, lambda step: 0.1)
    places = jnp.stack([params["kernel"] for params in trajectory])
    assert_close(places, jnp.outer(jnp.arange(51.0), jnp.asarray([-0.1, 0.1])), atol=5e-6)


def test_lamb_equals_timm(shared) -> None:
    optimizer = optimizer_config(name="lamb", weight_decay=0.02, clip_norm=1.0, decay_mask=ALL)
    assert_follows(shared / "fixtures/timm_lamb", optimizer, rate=0.01, atol=2e-6)


def test_lamb_without_decay_is_adam_unless_all_is_scaled() -> None:
    """As timm's, where `weight_decay != 0 or always_adapt` asks for the trust ratio."""
    params = {"kernel": jnp.asarray([[3.0, -4.0]])}
    gradients = [{"kernel": jnp.asarray([[0.5, 2.0]])}, {"kernel": jnp.asarray([[-1.0, 0.1]])}]
    fields = {"eps": 1e-6, "clip_norm": 0.0}
    adam, lamb, scaled = (
        train(params, gradients, optimizer_config(**kind, **fields), rate)[-1]["kernel"]
        for kind in ({"name": "adam"}, {"name": "lamb"}, {"name": "lamb", "scale_all": True})
    )
    np.testing.assert_array_equal(lamb, adam)
    assert np.abs(scaled - adam).max() > 0.1


def test_lamb_does_not_scale_what_a_factor_of_zero_keeps_from_decaying() -> None:
    """As timm's, where the group of such a parameter has a weight decay of 0."""
    params = {"head": {"kernel": jnp.full((2, 2), 100.0)}, "kernel": jnp.full((2, 2), 100.0)}
    gradients = [jax.tree.map(jnp.ones_like, params)]
    lamb = optimizer_config(
        name="lamb", weight_decay=0.1, clip_norm=0.0, decay_factors=(("^head/", 0.0),)
    )
    before, after = train(params, gradients, lamb, rate)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    assert moved["head"]["kernel"] == pytest.approx(0.1, rel=1e-3), "Adam's step of the rate"
    assert moved["kernel"] == pytest.approx(0.1 * 100, rel=1e-3), "a step of the parameter's size"


def test_lars_equals_maes_linear_probe(shared) -> None:
    optimizer = optimizer_config(name="lars", weight_decay=1e-4, clip_norm=0.0, decay_mask=("p0",))
    assert_follows(shared / "fixtures/mae_lars", optimizer, rate=0.5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 6e-4), ("bfloat16", 2.5e-4)])
def test_muon_equals_timm(shared, dtype, atol) -> None:
    """Timm iterates in bfloat16, whose rounding float32 does not have."""
    matrices = ("p0", "p2", "p3")
    optimizer = optimizer_config(
        name="muon",
        weight_decay=0.01,
        clip_norm=0.0,
        decay_mask=ALL,
        matrices=matrices,
        iteration_dtype=dtype,
    )
    folder = shared / "fixtures/timm_muon"
    assert_follows(folder, optimizer, rate=0.02, atol=atol, rough=matrices)


def test_muon_looks_ahead_by_the_momentum_of_nesterov() -> None:
    """The gradient, `lerp`-ed to the new average by the momentum, as in timm and PyTorch."""
    fields = {"name": "muon", "clip_norm": 0.0, "momentum": 0.8, "nesterov": True}
    optimizer = optimizer_config(**fields, iteration_dtype="float32", matrices=("kernel",))
    first, second = jax.random.normal(jax.random.key(0), (2, 4, 6))
    gradients = [{"kernel": first}, {"kernel": second}]
    _, before, after = train({"kernel": jnp.zeros((4, 6))}, gradients, optimizer, rate)
    average = 0.8 * (0.2 * first) + 0.2 * second
    ahead = 0.2 * second + 0.8 * average
    coefficients = muon.COEFFICIENTS["quintic"]
    made = muon.newton_schulz(ahead, coefficients=coefficients, dtype=jnp.dtype("float32"))
    expected = -0.1 * 0.2 * 6**0.5 * made
    assert_close(after["kernel"] - before["kernel"], expected, atol=1e-6)


def test_muon_with_nesterov_trains_the_rest_by_nadamw() -> None:
    """Timm's fallback: the first moment takes the gradient once more before it is divided."""
    optimizer = optimizer_config(
        name="muon", clip_norm=0.0, nesterov=True, b1=0.8, b2=0.9, matrices=("kernel",)
    )
    first, second = jnp.asarray([0.5, -2.0]), jnp.asarray([1.0, 0.25])
    gradients = [{"bias": g, "kernel": jnp.ones((2, 2))} for g in (first, second)]
    params = {"bias": jnp.zeros(2), "kernel": jnp.ones((2, 2))}
    _, before, after = train(params, gradients, optimizer, rate)
    moment = 0.8 * (0.2 * first) + 0.2 * second
    ahead = (0.8 * moment + 0.2 * second) / (1 - 0.8**2)
    square = (0.9 * (0.1 * first**2) + 0.1 * second**2) / (1 - 0.9**2)
    assert_close(after["bias"] - before["bias"], -0.1 * ahead / jnp.sqrt(square), rtol=1e-5)


def test_muon_may_iterate_with_the_coefficients_of_its_first_version() -> None:
    """Five times those of Keller Jordan's code, by the definition in NumPy."""
    fields = {"name": "muon", "clip_norm": 0.0, "momentum": 0.0, "nesterov": False}
    fields |= {"coefficients": "original", "iteration_dtype": "float32", "matrices": ("kernel",)}
    gradient = jax.random.normal(jax.random.key(0), (4, 6))
    _, after = train(
        {"kernel": jnp.zeros((4, 6))}, [{"kernel": gradient}], optimizer_config(**fields), rate
    )
    x = np.asarray(gradient, np.float64)
    x /= np.linalg.norm(x)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    assert_close(after["kernel"], -0.1 * 0.2 * 6**0.5 * x, atol=1e-6)


def test_adafactor_equals_big_vision(shared) -> None:
    folder = shared / "fixtures/bv_optim_adafactor_bv"
    steps, after = (dict(np.load(folder / f"{name}.npz")) for name in ("grads", "io"))
    schedule = make_schedule(
        ScheduleConfig(warmup=Duration(steps=2)),
        peak=1e-2,
        total_steps=10,
        batch_size=1,
        dataset_size=1,
    )
    wanted = json.loads((folder / "meta.json").read_text())["config"]
    assert (wanted["lr"], wanted["wd"], wanted["optax"]) == (0.01, 0.03, {"beta2_cap": 0.95})
    optimizer = optimizer_config(name="adafactor", b2_cap=0.95, weight_decay=0.03 / 1e-2)
    gradients = [nest(below(f"step{s}/", steps)) for s in range(6)]
    actual = train(nest(dict(np.load(folder / "init.npz"))), gradients, optimizer, schedule)
    for step in (1, 2, 3, 6):
        names = contract.paths(actual[step])
        flat = dict(zip(jax.tree.leaves(names), jax.tree.leaves(actual[step]), strict=True))
        for name, theirs in below(f"params_after_{step}/", after).items():
            # Compiled or not, the original itself differs by 1e-4 (its meta.json).
            assert_close(flat[name], theirs, atol=1e-4, about=name)


def test_adafactor_caps_the_decay_of_the_second_moment() -> None:
    """Without the cap it would be 0.9999 after 100,000 steps."""
    params = {"bias": jnp.asarray([2.0, -0.5])}
    rule = make_optimizer(optimizer_config(name="adafactor", b1=0.0, clip_norm=0.0), rate, params)
    state = jax.tree.map(
        lambda x: jnp.full_like(x, 100_000) if x.dtype == jnp.int32 else x, rule.init(params)
    )
    updates, _ = rule.update(params, state, params)
    assert_close(updates["bias"], [-0.1 / 0.001**0.5, 0.1 / 0.001**0.5], rtol=1e-4)


def test_lion_is_the_sign_of_the_average_with_decay() -> None:
    optimizer = optimizer_config(name="lion", weight_decay=0.1, clip_norm=0.0)
    params = {"kernel": jnp.asarray([1.0, -2.0, 3.0])}
    gradients = [{"kernel": jnp.asarray([3.0, -4.0, 3.0])}]
    gradients += [{"kernel": jnp.asarray([-0.2, -4.0, -0.3])}]
    *_, last = train(params, gradients, optimizer, lambda step: 0.5)
    first = params["kernel"] - 0.5 * (jnp.asarray([1.0, -1.0, 1.0]) + 0.1 * params["kernel"])
    # The moment after one step is 0.01 of the gradient: 0.9 * 0.03 - 0.1 * 0.2 is positive, and
    # 0.9 * 0.03 - 0.1 * 0.3 is negative.
    signs = jnp.asarray([1.0, -1.0, -1.0])
    assert_close(last["kernel"], first - 0.5 * (signs + 0.1 * first), rtol=1e-6)


@pytest.mark.parametrize("name", ["lamb", "lars", "muon"])
def test_a_stack_of_layers_moves_as_its_layers_do(name) -> None:
    """Other projects have a parameter for each layer: norms and matrices are of one."""
    key = jax.random.key(0)
    stacked = jax.random.normal(key, (3, 4, 6)) * jnp.asarray([1.0, 10, 100])[:, None, None]
    gradient = jax.random.normal(jax.random.key(1), (3, 4, 6))
    options = {"matrices": ("kernel",)} if name == "muon" else {}
    optimizer = optimizer_config(name=name, weight_decay=0.1, clip_norm=0.0, **options)
    whole = train(
        {"blocks": {"kernel": stacked}}, [{"blocks": {"kernel": gradient}}] * 2, optimizer, rate
    )[-1]["blocks"]["kernel"]
    for layer in range(3):
        alone = train(
            {"kernel": stacked[layer]}, [{"kernel": gradient[layer]}] * 2, optimizer, rate
        )[-1]["kernel"]
        assert_close(whole[layer], alone, rtol=2e-3 if name == "muon" else 1e-5)


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_a_parameter_of_zeros_is_not_held_there_by_its_own_size(name) -> None:
    """A new head begins with zeros."""
    optimizer = optimizer_config(name=name, weight_decay=0.1, clip_norm=0.0)
    zeros, gradient = {"kernel": jnp.zeros((2, 3))}, {"kernel": jnp.ones((2, 3))}
    moved = train(zeros, [gradient], optimizer, rate)[-1]["kernel"]
    assert_close(moved, np.full((2, 3), -0.1), rtol=1e-4)


@pytest.mark.parametrize("depth", [2, 40])
def test_adafactor_factors_a_stack_of_any_depth_as_its_layers(depth) -> None:
    """Forty layers are more than an axis needs to be factored, which would mix biases of layers."""
    shapes = {"kernel": (depth, 32, 48), "bias": (depth, 48)}
    stacked = {
        n: jax.random.normal(jax.random.key(i), s) for i, (n, s) in enumerate(shapes.items())
    }
    optimizer = optimizer_config(name="adafactor", clip_norm=0.0)
    whole = train({"blocks": stacked}, [{"blocks": stacked}] * 2, optimizer, rate)[-1]["blocks"]
    for layer in range(2):
        one = {name: array[layer] for name, array in stacked.items()}
        alone = train(one, [one] * 2, optimizer, rate)[-1]
        assert_close({name: array[layer] for name, array in whole.items()}, alone)


def test_adafactor_trains_a_head_on_frozen_blocks() -> None:
    params = {"blocks": {"kernel": jnp.ones((2, 3, 4))}, "head": {"kernel": jnp.ones((4, 5))}}
    optimizer = optimizer_config(name="adafactor", frozen=("^blocks/",))
    last = train(params, [params], optimizer, rate)[-1]
    assert (last["blocks"]["kernel"] == 1).all() and (last["head"]["kernel"] < 1).all()


def rate(step: jax.Array) -> float:
    return 0.1


def test_muon_joins_heads_and_makes_singular_values_about_one() -> None:
    assert muon.as_matrices("blocks/attention/qkv/kernel", jnp.zeros((2, 8, 3, 2, 4))).shape == (
        *(2, 8, 24),
    )
    assert muon.as_matrices("blocks/attention/out/kernel", jnp.zeros((2, 2, 4, 8))).shape == (
        *(2, 8, 8),
    )
    assert muon.as_matrices("embedding/kernel", jnp.zeros((4, 4, 3, 8))).shape == (48, 8)
    x = jax.random.normal(jax.random.key(0), (2, 6, 9))
    values = {"coefficients": muon.COEFFICIENTS["quintic"], "dtype": jnp.dtype("float32")}
    made = muon.newton_schulz(x, **values)
    spread = jnp.linalg.svd(made, compute_uv=False)
    assert spread.min() > 0.6 and spread.max() < 1.3


def muon_step(gradients: dict[str, Any], mesh: Mesh | None) -> tuple[Any, Any]:
    """The updates of a step of Muon, and the compiled program, for gradients on a mesh."""
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        rule = make_optimizer(optimizer_config(name="muon", clip_norm=0.0), rate, gradients)
        placed, state = gradients, rule.init(gradients)
        shardings = tree_shardings(gradients, mesh) if mesh else None
        if mesh:
            placed = jax.device_put(gradients, shardings)
            state = jax.device_put(state, tree_shardings(state, mesh))
        step = jax.jit(lambda g, s: rule.update(g, s, g)[0], out_shardings=shardings)
        program = step.lower(placed, state).compile()
        return program(placed, state), program


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_muon_splits_its_matrices_over_the_devices(axis) -> None:
    key = jax.random.key(0)
    shapes = {"fc1": (6, 32, 128), "fc2": (6, 128, 32), "out": (6, 32, 32)}
    mlp = {
        name: {"kernel": jax.random.normal(jax.random.fold_in(key, i), shape)}
        for i, (name, shape) in enumerate(shapes.items())
    }
    gradients = {"encoder": {"blocks": mlp}}
    expected, alone = muon_step(gradients, None)
    mesh = make_mesh(MeshConfig(**{"data": 1, axis: 8}))
    found, program = muon_step(gradients, mesh)
    assert_close(found, expected, scaled=0.02)  # products in bfloat16
    # 12 + 6 matrices are 2 + 1 for each of 8 devices.
    flops = [program.cost_analysis()["flops"] for program in (program, alone)]
    assert flops[0] < 0.25 * flops[1]
    # The matrices come and go once, and the iteration of five steps moves nothing.
    text = program.as_text()
    kinds = "all-gather|all-reduce|all-to-all|collective-permute"
    moved = re.findall(rf" ({kinds})(?:-start)?\(", text)
    assert "all-reduce" not in moved and len(moved) <= 6, moved


def a_vit() -> dict[str, Any]:
    block = {"attention": {"qkv": {"kernel": jnp.ones((2, 4, 3, 1, 4))}}}
    return {
        "encoder": {
            "blocks": block,
            "cls": jnp.ones((1, 1, 4)),
            "embedding": {"kernel": jnp.ones((2, 2, 3, 4))},
            "norm": {"scale": jnp.ones(4)},
            "relative_bias": jnp.ones((1, 5)),
        },
        "head": {"kernel": jnp.ones((4, 5))},
    }


def test_rates_decay_from_the_head_down_as_in_mae(shared) -> None:
    table = json.loads((shared / "fixtures/mae_schedule_layerdecay/meta.json").read_text())
    theirs = {name: row[0] for name, row in table["layer_decay_table"].items()}
    ours = rate_factors(optimizer_config(layer_decay=0.75), a_vit())
    encoder = ours["encoder"]
    qkv = encoder["blocks"]["attention"]["qkv"]["kernel"]
    assert qkv.shape == (2, 1, 1, 1, 1)
    for layer in range(2):
        assert_close(qkv[layer], theirs[f"blocks.{layer}.attn.qkv.weight"], rtol=1e-7)
    assert_close(encoder["cls"], theirs["cls_token"], rtol=1e-7)
    assert_close(encoder["embedding"]["kernel"], theirs["patch_embed.proj.weight"], rtol=1e-7)
    assert encoder["norm"]["scale"] == theirs["fc_norm.weight"] == 1
    assert ours["head"]["kernel"] == theirs["head.weight"] == 1
    assert encoder["relative_bias"] == 1, "as `rel_pos_bias` of BEiT, which all blocks share"


def test_decoupled_decay_of_sgd_is_no_part_of_the_momentum() -> None:
    """As big_vision's: rate * (momentum + decay * parameter), here by hand for two steps."""
    optimizer = optimizer_config(
        name="sgd", momentum=0.9, weight_decay=0.5, decoupled_decay=True, clip_norm=0.0
    )
    gradients = [{"kernel": jnp.asarray(2.0)}, {"kernel": jnp.asarray(-1.0)}]
    _, one, two = train({"kernel": jnp.asarray(1.0)}, gradients, optimizer, rate)
    assert_close(one["kernel"], 1 - 0.1 * (2 + 0.5 * 1), rtol=1e-6)
    by_hand = one["kernel"] - 0.1 * (0.9 * 2 - 1 + 0.5 * one["kernel"])
    assert_close(two["kernel"], by_hand, rtol=1e-6)


def test_a_factor_of_the_rate_scales_update_and_decay_of_its_parameters() -> None:
    optimizer = optimizer_config(
        weight_decay=0.5, rate_factors=(("^head", 0.1), ("kernel$", 0.5)), clip_norm=0.0
    )
    params, gradient = a_vit(), jax.tree.map(jnp.ones_like, a_vit())
    moved = train(params, [gradient], optimizer, rate)[-1]
    plain = train(params, [gradient], optimizer_config(weight_decay=0.5, clip_norm=0.0), rate)[-1]

    def ratio(path: tuple[str, ...]) -> float:
        a, b, start = moved, plain, params
        for part in path:
            a, b, start = a[part], b[part], start[part]
        return float(((a - start) / (b - start)).mean())

    assert ratio(("head", "kernel")) == pytest.approx(0.1, rel=1e-5)
    assert ratio(("encoder", "embedding", "kernel")) == pytest.approx(0.5, rel=1e-5)
    assert ratio(("encoder", "norm", "scale")) == pytest.approx(1)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "muon"])
def test_the_head_may_decay_more_than_the_body(name) -> None:
    """As in big_vision's recipe of ViT-G: 100 times."""
    gradient = jax.tree.map(jnp.zeros_like, a_vit())
    factors = (("^head/", 100.0), ("qkv", 0.0))
    optimizer = optimizer_config(name=name, weight_decay=0.01, decay_factors=factors)
    moved = train(a_vit(), [gradient], optimizer, rate)[-1]
    np.testing.assert_allclose(moved["head"]["kernel"], 1 - 0.1 * 0.01 * 100, rtol=1e-6)
    np.testing.assert_allclose(moved["encoder"]["embedding"]["kernel"], 1 - 0.1 * 0.01, rtol=1e-6)
    np.testing.assert_array_equal(moved["encoder"]["blocks"]["attention"]["qkv"]["kernel"], 1)
    np.testing.assert_array_equal(moved["encoder"]["norm"]["scale"], 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer_decay": 0.0}, "layer_decay is 0.0: it must be in"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5: it must be in"),
        ({"rate_factors": (("haed", 0.1),)}, "rate_factors: 'haed' matches no parameter"),
        (
            {"rate_factors": (("head", -1.0),)},
            "rate_factors has -1.0 for .head.: it must be finite",
        ),
        ({"rate_factors": (("head", float("inf")),)}, "rate_factors has inf for .head."),
        ({"decay_factors": (("haed", 2.0),)}, "decay_factors: 'haed' matches no parameter"),
        ({"name": "muon", "matrices": ("haed",)}, "matrices: 'haed' matches no parameter"),
        ({"name": "muon", "matrices": ("bias$",)}, "match .*bias, which is no matrix"),
        (
            {"name": "adamw", "decay_factors": (("bias$", 5.0),)},
            r"decay_factors: 'bias\$' matches only parameters that do not decay",
        ),
        ({"name": "lars", "trust_coefficient": -1.0}, "trust_coefficient is -1.0"),
        ({"name": "adafactor", "b2_cap": 1.0}, "b2_cap is 1.0: it must be in"),
    ],
)
def test_options_out_of_range_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        make_optimizer(optimizer_config(**options), rate, a_vit())


@pytest.mark.parametrize(
    ("rule", "expected", "said"),
    [
        ("linear", 1.5e-4 * 16, "0.0024 at batch 4096 (0.00015 for batches of 256, linear rule)"),
        ("sqrt", 1.5e-4 * 4, "0.0006 at batch 4096 (0.00015 for batches of 256, sqrt rule)"),
        ("none", 1.5e-4, "warning: the learning rate 0.00015 is for batches of 256"),
    ],
)
def test_the_rate_follows_the_batch_by_the_rule_of_the_recipe(rule, expected, said) -> None:
    optimizer = optimizer_config(learning_rate=1.5e-4, rate_batch=256, rate_rule=rule)
    found, note = peak_rate(optimizer, batch_size=4096)
    assert found == pytest.approx(expected) and said in note
    assert peak_rate(optimizer, batch_size=256) == (1.5e-4, "")


def test_a_rule_for_other_batches_needs_the_batch_of_the_rate() -> None:
    with pytest.raises(ValueError, match="rate_rule is sqrt.*: set config.optimizer.rate_batch"):
        peak_rate(optimizer_config(rate_rule="sqrt"), batch_size=256)


def test_layer_decay_is_refused_for_a_model_without_one_stack_of_blocks() -> None:
    with pytest.raises(ValueError, match="layer_decay is for Vision Transformers"):
        rate_factors(optimizer_config(layer_decay=0.5), {"head": {"kernel": jnp.ones((2, 2))}})


@pytest.mark.parametrize("name", ["lamb", "lars", "lion", "adafactor", "muon"])
def test_moments_lie_under_the_paths_of_their_parameters(name) -> None:
    """So that the rules of sharding find them."""
    shapes = jax.eval_shape(a_vit)
    optimizer = optimizer_config(name=name)
    state = jax.eval_shape(make_optimizer(optimizer, rate, shapes).init, shapes)
    names = jax.tree.leaves(contract.paths(shapes))
    seen = set()
    for keys, leaf in jax.tree_util.tree_leaves_with_path(state):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        owners = [n for n in names if path.endswith("/" + n)]
        assert owners or leaf.shape == (), path
        seen |= set(owners)
    assert seen == set(names)
