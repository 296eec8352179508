"""Every family becomes a program that computes the same, from uint8 pixels, at any batch size."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.data import augment
from vit_jax.export import program as program_lib
from vit_jax.export import stablehlo
from vit_jax.models import zoo
from vit_jax.models.bit import BiTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.regnet import RegNetOptions
from vit_jax.models.resnet import StemOptions
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.swin import SwinOptions

pytest.importorskip("flatbuffers", reason="jax.export writes files with it")

STEM = StemOptions(num_layers=(1,), root_width=16, groups=8)
SIZES: dict[str, Any] = {"image_size": (32, 48), "num_classes": 3}
OPTIONS: dict[str, zoo.Options] = {
    "ViT of grey images": tiny.options(channels=1, num_classes=4, depth=2),
    "hybrid": tiny.options(stem=STEM, patch_size=(1, 1), depth=1),
    "DeiT with distillation token": tiny.options(distillation=True, depth=1),
    "BEiT": tiny.options(
        **{"position": "none", "relative_bias": "per_block", "key_bias": False},
        **{"pool": "gap", "class_token": True, "norm_at": "pooled", "layer_scale": 0.1},
    ),
    "masked autoencoder": tiny.options(
        class_token=True,
        num_classes=0,
        fixed_position=True,
        decoder=DecoderOptions(width=16, depth=1, mlp_dim=32, num_heads=2),
    ),
    "BiT": BiTOptions(**SIZES, stem=dataclasses.replace(STEM, preactivation=True)),
    "Swin": SwinOptions(
        **SIZES, windows=((2, 3),), width=24, depths=(1, 1), num_heads=(2, 4), norm_eps=1e-6
    ),
    "ResNet": ResNetOptions(**SIZES, depths=(1, 1), width=8),
    "RegNet": RegNetOptions(**SIZES, stem_width=8, widths=(8, 16), depths=(1, 1), group_width=4),
}


def model(kind: str) -> zoo.Model:
    options = OPTIONS[kind]
    made = load.assemble(options, tiny.params(options))
    expects = Preprocessing(image_size=options.image_size, mean=(0.4, 0.5, 0.6))
    made.preprocessing = expects.for_channels(options.channels)
    return made


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_program_of_a_family_computes_what_the_model_does(kind, tmp_path) -> None:
    made = model(kind)
    program = program_lib.of_model(made, activation="softmax")
    assert stablehlo.write(tmp_path, program, ()) == {"program.stablehlo": None}
    run = stablehlo.loaded(tmp_path, "program.stablehlo")
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
    outputs = stablehlo.loaded(tmp_path, "program_3.stablehlo")(pixels)
    assert_close(outputs["probabilities"], jax.nn.sigmoid(outputs["logits"]))
    exact = jax.jit(program)(program.arrays, pixels)
    assert_close(outputs["logits"], exact["logits"], scaled=0.05)
    with pytest.raises(ValueError, match="incompatible|shape"):
        stablehlo.loaded(tmp_path, "program_3.stablehlo")(pixels[:1])
