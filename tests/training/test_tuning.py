"""Training a part of a model: each kind is its definition, and its runs are like any others."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.extending.life import Life
from tests.models import tiny
from tests.training.one_step import Training, make_config, mesh_of
from vit_jax.checkpoints import load, run_folder
from vit_jax.models import flops, zoo
from vit_jax.models.lora import LAYERS, Linear, LoraOptions, attach, merged, product
from vit_jax.training.tuning.parts import BitFit

RATE = 0.5
LORA = LoraOptions(rank=3, alpha=6.0, layers=(".",))
Arrays = dict[str, np.ndarray]


def flat(tree: Any) -> Arrays:
    return dict(traverse_util.flatten_dict(tree, sep="/"))


def training(kind: str, *, mesh: str = "one", last: int = 0, parts: int = 1, **model) -> Training:
    """A step of SGD without clipping, compiled for a tiny model of three blocks."""
    fields: dict[str, Any] = {"tune.kind": kind, "ema": 0.0} | ({"tune.last": last} if last else {})
    numbers = {"weight_decay": 0.0, "clip_norm": 0.0, "learning_rate": RATE, "accumulate": parts}
    return Training(make_config("sgd", fields=fields, **numbers), mesh_of(mesh), depth=3, **model)


@functools.cache
def moved(kind: str, **options: Any) -> tuple[Arrays, Arrays, Training, float]:
    """The parameters before and after the step, and the norm of its gradient."""
    found = training(kind, **options)
    before = flat(jax.device_get(found.state["params"]))
    norm = found.run()["grad_norm"]
    return before, flat(jax.device_get(found.state["params"])), found, norm


def in_head(path: str) -> bool:
    return path.startswith("head/")


def after_blocks(path: str) -> bool:
    return in_head(path) or path.startswith(("encoder/blocks/", "encoder/norm/"))


@pytest.mark.parametrize(
    ("kind", "options", "trains"),
    [
        ("head", {}, in_head),
        ("bitfit", {"parts": 2}, lambda path: in_head(path) or path.endswith("/bias")),
        ("blocks", {"last": 2}, after_blocks),
        ("blocks", {"last": 1, "parts": 2, "mesh": "all"}, after_blocks),
    ],
)
def test_what_trains_moves_as_in_full_training_and_the_rest_keeps_its_bits(
    kind: str, options: dict[str, Any], trains: Callable[[str], bool]
) -> None:
    """The optimizer holds the momentum of what trains and nothing else."""
    expected, (before, after, found, norm) = moved("full")[1], moved(kind, **options)
    squares, numbers = 0.0, 0
    for path, array in after.items():
        first = 3 - options.get("last", 3) if path.startswith("encoder/blocks/") else 0
        if not trains(path):
            assert_same_bits({path: array}, {path: before[path]})
            continue
        assert_same_bits({path: array[:first]}, {path: before[path][:first]})
        ours, theirs = (a[path][first:] - before[path][first:] for a in (after, expected))
        assert_close(ours, theirs, scaled=1e-4, floor=1e-2, about=path)
        squares, numbers = squares + float(np.sum(np.square(ours))), numbers + ours.size
    assert norm == pytest.approx(np.sqrt(squares) / RATE, rel=1e-4)
    moments = jax.tree.leaves(found.abstract["opt_state"])
    assert sum(leaf.size for leaf in moments if leaf.ndim) == numbers


@pytest.mark.parametrize("model", [{}, {"key_bias": False, "mlp": "swiglu"}])
def test_gradients_of_lora_follow_from_those_of_the_kernels_by_the_chain_rule(model) -> None:
    """At W + alpha / rank A B: that of A is G B', that of B is A' G, both times alpha / rank."""
    before, after, found, _ = moved("lora", lora=LORA, **model)
    full = training("full", **model)
    kernels = merged(before, LORA)
    for path, array in flat(full.state["params"]).items():
        assert array.shape == kernels[path].shape
    shardings = jax.tree.map(lambda leaf: leaf.sharding, full.abstract["params"])
    nested = traverse_util.unflatten_dict(kernels, sep="/")
    full.state["params"] = jax.device_put(nested, shardings)
    full.run()
    moves = {
        path: (kernels[path] - array).astype(np.float64)
        for path, array in flat(jax.device_get(full.state["params"])).items()
    }
    for name in LAYERS:
        path = f"encoder/blocks/{name}"
        a, b = (before[f"{path}/lora/{part}"].astype(np.float64) for part in "ab")
        rows, columns = a.reshape(3, -1, LORA.rank), b.reshape(3, LORA.rank, -1)
        of_kernel = moves[f"{path}/kernel"].reshape(3, rows.shape[1], columns.shape[2])
        expected = {
            "a": 2 * np.einsum("lio,lro->lir", of_kernel, columns).reshape(a.shape),
            "b": 2 * np.einsum("lir,lio->lro", rows, of_kernel).reshape(b.shape),
        }
        for part, move in expected.items():
            ours = before[f"{path}/lora/{part}"] - after[f"{path}/lora/{part}"]
            assert_close(ours, move, scaled=1e-4, about=f"{path}/{part}")
    for path in ("head/kernel", "head/bias"):
        assert_close(before[path] - after[path], moves[path], scaled=1e-4, about=path)
    for path, array in after.items():
        if "/lora/" not in path and not in_head(path):
            assert_same_bits({path: array}, {path: before[path]})


def test_lora_is_the_same_on_any_mesh() -> None:
    expected = moved("lora", lora=LORA)[1]
    ours = moved("lora", lora=LORA, mesh="all")
    assert_close(ours[1], expected, scaled=1e-4, floor=1e-3)
    split = ours[2].abstract["params"]["encoder"]["blocks"]["mlp"]["fc1"]["lora"]["b"].sharding
    assert split.spec[-1] == "tensor"


@pytest.fixture(scope="module")
def pretrained(recipe, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    assert cli.train(recipe, folder, "--config.total.steps=2", "--config.ema=0.0") == 0
    return folder


def test_a_run_of_lora_resumes_is_evaluated_and_loads_with_merged_kernels(
    pretrained, tmp_path, monkeypatch, capsys
) -> None:
    tune = ("--config.tune.kind=lora", "--config.tune.rank=2", "--config.tune.alpha=8")
    run = Life(tmp_path, monkeypatch).lives(f"--config.init_from={pretrained}", *tune)
    assert "note: 426 of 14,426 parameters train" in capsys.readouterr().err
    adapters, loaded = run_folder.read_card(run).options.lora, load.read(run)
    assert adapters == LoraOptions(rank=2, alpha=8.0)
    assert loaded.options.lora is None
    saved = {path: array for path, array in runs.arrays(run).items() if path.startswith("ema/")}
    assert np.abs(saved["ema/encoder/blocks/attention/qkv/lora/b"]).max() > 0
    kernels = merged({path.removeprefix("ema/"): array for path, array in saved.items()}, adapters)
    assert_same_bits(loaded.params, kernels)
    start = load.read(pretrained).params
    assert_same_bits(
        saved["ema/encoder/blocks/mlp/fc1/kernel"], start["encoder/blocks/mlp/fc1/kernel"]
    )


def test_merged_kernels_compute_the_same_as_adapters() -> None:
    options = tiny.options(lora=LORA)
    params = tiny.params(options)
    plain, images = tiny.options(), tiny.images()
    adapted = load.assemble(options, params)(images)
    together = load.assemble(plain, merged(params, LORA))(images)
    assert_close(together, adapted, scaled=1e-6)


def test_adapters_cost_the_forward_pass_nothing_for_each_image() -> None:
    def products(batch: int, **changes: Any) -> int:
        graphdef, params = zoo.abstract(tiny.options(**changes))
        call = jax.make_jaxpr(lambda params, x: nnx.merge(graphdef, params)(x))
        return flops.of_program(call(params, tiny.images(batch)).jaxpr)

    added = [products(batch, lora=LORA) - products(batch) for batch in (1, 4)]
    assert 0 < added[0] == added[1]


def test_the_sum_of_kernel_and_adapter_is_rounded_only_once() -> None:
    """So steps that are too small for bfloat16 add up, as in the weights of full training."""
    rng = np.random.default_rng(0)
    kernel, a = rng.normal(size=(64, 64)), rng.normal(size=(64, 1))
    layer = Linear(64, 64, dtype=jax.numpy.bfloat16, rngs=nnx.Rngs(0))
    attach(layer, "mlp/fc1", LoraOptions(rank=1, alpha=1.0, layers=("fc1",)), rngs=nnx.Rngs(0))
    layer.kernel[...] = jax.numpy.asarray(kernel, np.float32)
    layer.lora.a[...] = jax.numpy.asarray(a, np.float32)
    layer.lora.b[...] = jax.numpy.full((1, 64), 2.0**-12)
    whole = jax.numpy.asarray(kernel + a * 2.0**-12, np.float32).astype(jax.numpy.bfloat16)
    rounded = np.asarray(product(layer, jax.numpy.eye(64)), np.float32)
    assert_same_bits({"kernel": rounded}, {"kernel": np.asarray(whole, np.float32)})
    assert not np.array_equal(rounded, np.asarray(layer.kernel[...].astype(jax.numpy.bfloat16)))


def test_a_model_with_adapters_in_bfloat16_is_the_merged_model_in_bfloat16() -> None:
    """The blocks cast kernels for all layers at once, but not those with an adapter."""
    options = tiny.options(lora=LORA, dtype="bfloat16")
    params = tiny.params(options)
    # These changes are smaller than the spacing of the kernels in bfloat16.
    small = {k: v * (1e-3 if k.endswith("lora/b") else 1) for k, v in params.items()}
    none = {k: v * (0 if k.endswith("lora/b") else 1) for k, v in params.items()}
    images = tiny.images(batch=64)
    found, without = (np.asarray(load.assemble(options, p)(images)) for p in (small, none))
    whole = load.assemble(zoo.change(options, lora=None), merged(small, LORA))(images)
    assert np.abs(found - whole).max() < 0.2 * np.abs(found - without).max()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("kind=adapters",), "choose one of 'full', 'head', 'bitfit', 'blocks', 'lora'"),
        (("kind=head",), "config.tune trains a part of a model .*config.init_from"),
        (("kind=head", "rank=4"), "config.tune.rank"),
        (("kind=lora", "rank=0"), "the rank of LoRA is 0: it must be at least 1"),
        (("kind=lora", "alpha=-1"), "alpha of LoRA is -1.0: it must be positive"),
        (("kind=lora", "layers=attn"), "'attn' matches no layer: choose from .*attention/qkv"),
        (("kind=lora", "layers=("), "is not a regular expression"),
        (("kind=blocks", "last=3", "from"), r"config.tune.last is 3: it must be in \[1, 2\]"),
        (("kind=bitfit", "from", "objective=mae"), "fine-tunes a part of a classifier"),
        (
            ("kind=blocks", "last=1", "from", "grows"),
            "config.progressive and config.tune.kind=blocks",
        ),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_line(
    fields, message, recipe, pretrained, tmp_path, capsys
) -> None:
    given = {
        "from": f"--config.init_from={pretrained}",
        "objective=mae": "--config.objective.name=mae",
        "grows": "--config.progressive=((0.5,14),)",
    }
    arguments = [given.get(field, f"--config.tune.{field}") for field in fields]
    assert cli.train(recipe, tmp_path / "run", *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert not (tmp_path / "run").exists()


def test_bitfit_trains_the_biases_of_layers() -> None:
    """Biases of positions are no biases of a layer."""
    options = tiny.options(position="none", relative_bias="shared")
    trained = [path for path in tiny.params(options) if BitFit().trains(path, options)]
    assert "encoder/blocks/mlp/fc1/bias" in trained and "encoder/norm/bias" in trained
    assert "head/kernel" in trained and "encoder/relative_bias" not in trained
    assert not any(path.startswith("encoder/") and path.endswith("kernel") for path in trained)
