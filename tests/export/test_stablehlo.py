"""Every family becomes a program that computes the same, from uint8 pixels, at any batch size."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.export.families import OPTIONS, model
from vit_jax.data import augment
from vit_jax.export import parity, stablehlo
from vit_jax.export import program as program_lib
from vit_jax.export.program import Program

pytest.importorskip("flatbuffers", reason="jax.export writes files with it")


def written(
    folder: pathlib.Path, *programs: Program, batches: Sequence[int] = ()
) -> dict[str, parity.Run]:
    variants = list(program_lib.variants(programs, batches, suffix=stablehlo.SUFFIX))
    stablehlo.write(folder, variants)
    return {variant.name: stablehlo.loaded(folder, variant) for variant in variants}


def pixels(program: Program, batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, program.image_shape(batch), dtype=np.uint8)


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_program_of_a_family_computes_what_the_model_does(kind, tmp_path) -> None:
    made = model(kind)
    program = program_lib.of_model(made, activation="softmax")
    run = written(tmp_path, program)["program.stablehlo"]
    images = pixels(program, 2)
    outputs = run(images)
    expects = made.preprocessing
    assert expects is not None
    normal = augment.normalize(images, mean=expects.mean, std=expects.std)
    if made.options.num_classes:
        logits = jax.jit(made)(normal)
        assert_close(outputs["logits"], logits)
        assert_close(outputs["probabilities"], jax.nn.softmax(logits))
    else:
        assert_close(outputs, {"features": jax.jit(made.features)(normal)})


@pytest.mark.parametrize("kind", OPTIONS)
def test_int8_kernels_of_a_family_give_nearly_the_same(kind) -> None:
    exact = program_lib.of_model(model(kind), activation="softmax")
    rounded = exact.with_weights("int8")
    assert sum(array.nbytes for array in rounded.arrays.values()) < sum(
        array.nbytes for array in exact.arrays.values()
    )
    images, name = pixels(exact, 4), exact.names()[0]
    found, expected = parity.of_program(rounded)(images), parity.of_program(exact)(images)
    assert not np.array_equal(found[name], expected[name])
    assert_close(found[name], expected[name], scaled=parity.INT8_BOUND)


def test_fixed_batches_have_a_program_each_and_bfloat16_halves_the_kernels(tmp_path) -> None:
    program = program_lib.of_model(model("ViT of grey images"), activation="sigmoid")
    half = program.with_weights("bfloat16")
    runs = written(tmp_path, half, batches=(1, 3))
    assert list(runs) == ["program_1.stablehlo", "program_3.stablehlo"]
    kinds = {path: array.dtype for path, array in half.arrays.items()}
    assert kinds["encoder/blocks/mlp/fc1/kernel"] == jnp.bfloat16
    assert kinds["head/kernel"] == kinds["encoder/blocks/mlp/fc1/bias"] == np.float32
    outputs = runs["program_3.stablehlo"](pixels(program, 3))
    assert_close(outputs["probabilities"], jax.nn.sigmoid(outputs["logits"]))
    exact = jax.jit(program)(program.arrays, pixels(program, 3))
    assert_close(outputs["logits"], exact["logits"], scaled=0.05)
    with pytest.raises(ValueError, match="incompatible|shape"):
        runs["program_3.stablehlo"](pixels(program, 1))


@pytest.mark.parametrize("kind", ["ViT of grey images", "BEiT", "Swin", "ResNet"])
def test_programs_for_several_sizes_share_all_arrays_that_do_not_depend_on_it(
    kind, tmp_path
) -> None:
    made = model(kind)
    sizes = (made.options.image_size, (64, 64))
    each = [
        program_lib.of_model(made.resized(*size), activation="softmax").with_weights("int8")
        for size in sizes
    ]
    shared = program_lib.sharing(each)
    runs = written(tmp_path, *shared)
    assert list(runs) == [f"program_{h}x{w}.stablehlo" for h, w in sizes]
    for run, alone in zip(runs.values(), each, strict=True):
        expected = parity.of_program(alone)(pixels(alone, 2))
        assert_close(run(pixels(alone, 2)), expected)
    own = {name.partition("@")[0] for name in shared[0].arrays if "@" in name}
    assert not any("kernel" in path for path in own)
    assert len(shared[0].arrays) == len(each[0].arrays) + len(own)


def test_only_one_layer_of_int8_kernels_is_in_memory_as_float32() -> None:
    options = OPTIONS["ViT of grey images"].changed(depth=64, mlp_dim=512)
    made = model("ViT of grey images", options)
    exact = program_lib.of_model(made, activation="softmax")
    program = exact.with_weights("int8")
    compiled = jax.jit(program).lower(program.arrays, pixels(program, 1)).compile()
    kernels = sum(a.nbytes for path, a in exact.arrays.items() if path.endswith("/kernel"))
    memory = compiled.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < kernels / 8
