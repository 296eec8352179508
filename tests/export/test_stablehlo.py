"""Every family becomes a program that computes the same, from uint8 pixels, at any batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.export.families import OPTIONS, model
from vit_jax.data import augment
from vit_jax.export import program as program_lib
from vit_jax.export import stablehlo

pytest.importorskip("flatbuffers", reason="jax.export writes files with it")


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_program_of_a_family_computes_what_the_model_does(kind, tmp_path) -> None:
    made = model(kind)
    program = program_lib.of_model(made, activation="softmax")
    assert stablehlo.write(tmp_path, program, ()) == {"program.stablehlo": None}
    run = stablehlo.loaded(tmp_path, "program.stablehlo", program)
    shape = program.image_shape(2)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    outputs = run(pixels)
    expects = made.preprocessing
    assert expects is not None
    normal = augment.normalize(pixels, mean=expects.mean, std=expects.std)
    if made.options.num_classes:
        logits = jax.jit(made)(normal)
        assert_close(outputs["logits"], logits)
        assert_close(outputs["probabilities"], jax.nn.softmax(logits))
    else:
        assert_close(outputs, {"features": jax.jit(made.features)(normal)})


def test_fixed_batches_have_a_program_each_and_bfloat16_halves_the_kernels(tmp_path) -> None:
    program = program_lib.of_model(model("ViT of grey images"), activation="sigmoid")
    half = program.with_weights("bfloat16", dtype="bfloat16")
    files = stablehlo.write(tmp_path, half, (1, 3))
    assert files == {"program_1.stablehlo": 1, "program_3.stablehlo": 3}
    kinds = {path: array.dtype for path, array in half.arrays.items()}
    assert kinds["encoder/blocks/mlp/fc1/kernel"] == jnp.bfloat16
    assert kinds["head/kernel"] == kinds["encoder/blocks/mlp/fc1/bias"] == np.float32
    pixels = np.random.default_rng(0).integers(0, 256, program.image_shape(3), dtype=np.uint8)
    outputs = stablehlo.loaded(tmp_path, "program_3.stablehlo", half)(pixels)
    assert_close(outputs["probabilities"], jax.nn.sigmoid(outputs["logits"]))
    exact = jax.jit(program)(program.arrays, pixels)
    assert_close(outputs["logits"], exact["logits"], scaled=0.05)
    with pytest.raises(ValueError, match="incompatible|shape"):
        stablehlo.loaded(tmp_path, "program_3.stablehlo", half)(pixels[:1])
