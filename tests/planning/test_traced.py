"""FLOPs and memory that a traced step asks for; no compiler is needed."""

from collections.abc import Mapping
from typing import Any

import pytest

from vit_jax.config import Config, default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.planning import designed, facts, worker
from vit_jax.training.design import Design, design

FACTS = DataFacts(train_size=1000, num_classes=1000)
LAYERS, WIDTH, MLP, TOKENS, PATCHES = 12, 192, 768, 197, 196


def planned(
    frozen: tuple[str, ...] = (), tune: Mapping[str, Any] | None = None, **fields
) -> Design:
    config = default_config()
    config.optimizer.frozen = frozen
    config.tune.update(tune or {})
    config.model.name = "Ti/16"
    config.batch_size = 8
    for name, value in fields.items():
        config.model[name] = value
    resolved = resolve(config)
    return design(resolved, FACTS, mesh_lib.make_mesh(resolved.mesh))


def traced(*args: Any, **fields: Any) -> designed.Traced:
    return designed.trace(planned(*args, **fields))


def test_flops_are_those_of_the_formula() -> None:
    block = 8 * TOKENS * WIDTH**2 + 4 * TOKENS * WIDTH * MLP + 4 * TOKENS**2 * WIDTH
    patches = 2 * PATCHES * 16 * 16 * 3 * WIDTH
    head = 2 * WIDTH * 1000
    # The images have no gradient, so the patches cost two products instead of three.
    expected = 3 * (LAYERS * block + head) + 2 * patches
    assert traced(remat="none").flops == expected
    assert traced(remat="none", dtype="bfloat16").flops == expected  # whatever attention it has


def test_frozen_parameters_have_no_gradient() -> None:
    block = 8 * TOKENS * WIDTH**2 + 4 * TOKENS * WIDTH * MLP + 4 * TOKENS**2 * WIDTH
    forward = LAYERS * block + 2 * PATCHES * 16 * 16 * 3 * WIDTH
    found = traced(frozen=("^encoder/",), remat="none")
    assert found.flops == found.with_remat == forward + 2 * (2 * WIDTH * 1000)


def test_frozen_blocks_have_no_backward_pass_and_keep_nothing_for_it() -> None:
    full, tuned = (
        designed.facts(planned(tune=tune, remat="none"))
        for tune in ({}, {"kind": "blocks", "last": 3})
    )
    block = 8 * TOKENS * WIDTH**2 + 4 * TOKENS * WIDTH * MLP + 4 * TOKENS**2 * WIDTH
    forward = 9 * block + 2 * PATCHES * 16 * 16 * 3 * WIDTH
    assert tuned.flops == 8 * (forward + 3 * (3 * block + 2 * WIDTH * 1000))
    assert tuned.bytes.activations < 0.3 * full.bytes.activations
    assert tuned.bytes.gradients < 0.3 * full.bytes.gradients == 0.3 * full.bytes.parameters
    assert tuned.bytes.optimizer < 0.3 * full.bytes.optimizer


def test_adapters_have_gradients_and_the_kernels_have_none() -> None:
    """A kernel costs two products, not three; an adapter of rank 8 costs little."""
    flops = {kind: traced(tune={"kind": kind}, remat="none").flops for kind in ("full", "lora")}
    assert 0.65 * flops["full"] < flops["lora"] < 0.75 * flops["full"]


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputation_is_counted_apart_and_saves_memory(remat) -> None:
    # This attention computes nothing again by itself.
    plain, saved = (traced(remat=one, attention="xla") for one in ("none", remat))
    assert plain.with_remat == plain.flops == saved.flops < saved.with_remat
    assert saved.kept < plain.kept


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("total memory required for HLO temporaries (143.50M) exceeds", 143.5 * 2**20),
        ("Ran out of memory in memory space hbm. Used 49.86G of 15.75G hbm.", 49.86 * 2**30),
        ("something else", None),
    ],
)
def test_the_memory_in_the_message_of_the_compiler(message, expected) -> None:
    assert worker.bytes_needed(message) == expected


@pytest.mark.parametrize(
    ("split", "per_class", "size"),
    [
        ("train", 0, 50_000),
        ("train[:99%]", 0, 49_500),
        ("train[10:20]", 0, 10),
        ("train", 20, 200),
        ("train[:90%]", 100, 1_000),
        ("train[:10%]", 10, 100),
        ("test", 10, 100),
    ],
)
def test_a_known_dataset_needs_no_flags(split, per_class, size) -> None:
    found = facts.of_config(of_cifar10(split, per_class), train_size=None, num_classes=None)
    assert (found.train_size, found.num_classes) == (size, 10)


def of_cifar10(split: str, per_class: int = 0) -> Config:
    config = default_config()
    config.model.name = "Ti/16"
    config.data.source, config.data.name, config.data.train_split = "tfds", "cifar10", split
    config.data.per_class = per_class
    return resolve(config)


def test_the_size_of_another_split_than_train_is_not_guessed() -> None:
    with pytest.raises(
        ValueError, match="images and classes of cifar10 is not known: give --train"
    ):
        facts.of_config(of_cifar10("test"), train_size=None, num_classes=None)
    with pytest.raises(ValueError, match="has only 5000 images of 10 classes in train.:10%"):
        facts.of_config(of_cifar10("train[:10%]", 501), train_size=None, num_classes=None)


def test_an_unknown_dataset_asks_for_flags() -> None:
    config = default_config()
    config.model.name = "Ti/16"
    config.data.source, config.data.name = "tfds", "mine"
    with pytest.raises(ValueError, match="give --train-size and --num-classes"):
        facts.of_config(resolve(config), train_size=None, num_classes=None)
    given = facts.of_config(resolve(config), train_size=5, num_classes=3)
    assert (given.train_size, given.num_classes) == (5, 3)
