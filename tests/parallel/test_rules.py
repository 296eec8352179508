"""Which axis of a parameter goes to which axis of the mesh."""

import jax
import optax
import pytest
from jax.sharding import PartitionSpec as P

from tests.models import tiny
from vit_jax.checkpoints import surgery
from vit_jax.config import MeshConfig
from vit_jax.models.resnet import StemOptions
from vit_jax.parallel import rules
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import state

SHAPES = {  # L 3, D 256, H 4, d 64, M 1024
    "encoder/blocks/attention/qkv/kernel": (3, 256, 3, 4, 64),
    "encoder/blocks/attention/qkv/bias": (3, 3, 4, 64),
    "encoder/blocks/attention/out/kernel": (3, 4, 64, 256),
    "encoder/blocks/attention/out/bias": (3, 256),
    "encoder/blocks/mlp/fc1/kernel": (3, 256, 1024),
    "encoder/blocks/mlp/fc1/bias": (3, 1024),
    "encoder/blocks/mlp/fc2/kernel": (3, 1024, 256),
    "encoder/blocks/norm1/scale": (3, 256),
    "pool/attention/qkv/kernel": (256, 3, 4, 64),
    "encoder/embedding/kernel": (16, 16, 3, 256),
    "encoder/position": (1, 320, 256),
    "head/kernel": (256, 1000),
    "head/bias": (1000,),
    "step": (),
    "key": (2,),
}
EXPECTED = {
    "data": {name: P(*[None] * len(shape)) for name, shape in SHAPES.items()},
    "fsdp": {
        "encoder/blocks/attention/qkv/kernel": P(None, "fsdp", None, None, None),
        "encoder/blocks/attention/qkv/bias": P(None, None, None, None),
        "encoder/blocks/attention/out/kernel": P(None, None, None, "fsdp"),  # 4 heads, 8 parts
        "encoder/blocks/attention/out/bias": P(None, None),
        "encoder/blocks/mlp/fc1/kernel": P(None, "fsdp", None),
        "encoder/blocks/mlp/fc1/bias": P(None, None),
        "encoder/blocks/mlp/fc2/kernel": P(None, "fsdp", None),
        "encoder/blocks/norm1/scale": P(None, None),
        "pool/attention/qkv/kernel": P("fsdp", None, None, None),
        "encoder/embedding/kernel": P("fsdp", None, None, None),
        "encoder/position": P(None, "fsdp", None),
        "head/kernel": P("fsdp", None),  # by input features: 1000 classes divide too
        "head/bias": P(None),
        "step": P(),
        "key": P(None),
    },
    "all": {
        "encoder/blocks/attention/qkv/kernel": P(None, "fsdp", None, "tensor", None),
        "encoder/blocks/attention/qkv/bias": P(None, None, "tensor", None),
        "encoder/blocks/attention/out/kernel": P(None, "tensor", None, "fsdp"),
        "encoder/blocks/attention/out/bias": P(None, None),
        "encoder/blocks/mlp/fc1/kernel": P(None, "fsdp", "tensor"),
        "encoder/blocks/mlp/fc1/bias": P(None, "tensor"),
        "encoder/blocks/mlp/fc2/kernel": P(None, "tensor", "fsdp"),
        "encoder/blocks/norm1/scale": P(None, None),
        "pool/attention/qkv/kernel": P("fsdp", None, "tensor", None),
        "encoder/embedding/kernel": P("fsdp", None, None, None),
        "encoder/position": P(None, "fsdp", None),
        "head/kernel": P("fsdp", "tensor"),
        "head/bias": P("tensor"),
        "step": P(),
        "key": P(None),  # would divide by 2, but every device needs it
    },
}
SMALLEST = 65_536  # of `rules`, which conftest.py lowers for tiny models
MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "all": MeshConfig(data=2, fsdp=2, tensor=2),
}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("name", SHAPES)
def test_axes_of_parameters(mesh, name, monkeypatch) -> None:
    monkeypatch.setattr(rules, "SMALLEST", SMALLEST)
    assert rules.spec(name, SHAPES[name], make_mesh(MESHES[mesh])) == EXPECTED[mesh][name]


def test_every_head_and_every_attention_is_split_by_its_own_axis() -> None:
    mesh = make_mesh(MeshConfig(data=1, tensor=8))
    for name in ("head", "mim_head"):
        assert rules.spec(f"{name}/kernel", (32, 16), mesh) == P(None, "tensor")
        assert rules.spec(f"{name}/bias", (16,), mesh) == P("tensor")
    for place in ("decoder/blocks", "stage1/blocks"):
        kernel = rules.spec(f"{place}/attention/qkv/kernel", (2, 32, 3, 8, 4), mesh)
        assert kernel == P(None, None, None, "tensor", None)


def test_heads_that_do_not_divide_stay_whole() -> None:
    mesh = make_mesh(MeshConfig(data=1, tensor=8))
    for name, shape in (
        ("encoder/blocks/attention/qkv/kernel", (3, 32, 3, 4, 8)),
        ("head/kernel", (32, 10)),
    ):
        assert set(rules.spec(name, shape, mesh)) == {None}
    assert rules.spec("encoder/blocks/mlp/fc1/kernel", (3, 32, 48), mesh) == P(None, None, "tensor")


def test_the_size_that_decides_is_that_of_one_layer(monkeypatch) -> None:
    monkeypatch.setattr(rules, "SMALLEST", SMALLEST)
    mesh = make_mesh(MESHES["fsdp"])
    for depth in (1, 128):
        assert rules.spec("blocks/mlp/fc1/kernel", (depth, 256, 256), mesh)[1] == "fsdp"
        assert set(rules.spec("blocks/mlp/fc1/kernel", (depth, 256, 248), mesh)) == {None}


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "map", "position": "learned_2d", "position_at": "every_block"},
        {"position": "relative", "representation_size": 16},
        {"stem": StemOptions(num_layers=(1,)), "image_size": (32, 64)},
    ],
)
@pytest.mark.parametrize("mesh", MESHES)
def test_every_parameter_of_every_kind_of_model_has_a_split_that_divides(changes, mesh) -> None:
    placed = make_mesh(MESHES[mesh])
    # So deep that the layer axis is the largest, and divides.
    for path, shape in surgery.shapes(tiny.options(**changes, depth=128)).items():
        spec = rules.spec(path, shape, placed)
        jax.sharding.NamedSharding(placed, spec).shard_shape(shape)  # raises if it does not
        if path.startswith("encoder/blocks/"):
            assert spec[0] is None, "the scan runs over the layers"


@pytest.mark.parametrize(
    "place",
    ["blocks", "params/blocks", "opt_state/0/mu/blocks", "ema/decoder/blocks", "stage2/blocks"],
)
def test_the_layer_axis_is_never_split_wherever_the_blocks_are(place) -> None:
    mesh = make_mesh(MESHES["fsdp"])
    for name, shape in (("norm1/scale", (128, 32)), ("attention/qkv/kernel", (128, 8, 3, 1, 8))):
        spec = rules.spec(f"{place}/{name}", shape, mesh)
        assert spec[:2] == (None, "fsdp"), "though it is the largest and divides"


def test_no_state_of_a_run_has_a_split_layer_axis() -> None:
    mesh = make_mesh(MESHES["fsdp"])
    rule = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    abstract = state.abstract_state(tiny.options(depth=64), rule, average=True, mesh=mesh)
    leaves = jax.tree_util.tree_leaves_with_path(abstract)
    stacked = {jax.tree_util.keystr(p): x for p, x in leaves if "blocks" in jax.tree_util.keystr(p)}
    assert len(stacked) == 4 * 12, "parameters, two moments and the average"
    for path, leaf in stacked.items():
        assert leaf.sharding.spec[0] is None and "fsdp" in leaf.sharding.spec, path


@pytest.mark.parametrize("mesh", MESHES)
def test_moments_of_fewer_axes_than_their_parameters_have_a_split_that_divides(mesh) -> None:
    placed = make_mesh(MESHES[mesh])
    rule = optax.adafactor(1e-3, min_dim_size_to_factor=8)
    abstract = state.abstract_state(tiny.options(), rule, average=False, mesh=placed)
    for leaf in jax.tree.leaves(abstract):
        leaf.sharding.shard_shape(leaf.shape)  # raises if it does not


def test_moments_and_averages_are_split_as_their_parameters() -> None:
    mesh = make_mesh(MESHES["all"])
    abstract = state.abstract_state(tiny.options(), optax.adamw(1e-3), average=True, mesh=mesh)
    params = jax.tree.map(lambda leaf: leaf.sharding, abstract["params"])
    moments = abstract["opt_state"][0]
    for tree in (moments.mu, moments.nu, abstract["ema"]):
        assert jax.tree.map(lambda leaf: leaf.sharding, tree) == params
