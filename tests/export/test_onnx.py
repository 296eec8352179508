"""ONNX Runtime computes what the model does, at any batch size, or one line says what it lacks."""

import jax
import numpy as np
import pytest

from tests.compare import assert_close
from tests.export.families import model
from vit_jax.export import onnx, program

pytest.importorskip("jax2onnx", reason="pip cannot install it beside orbax-checkpoint 0.12")
pytest.importorskip("onnxruntime", reason="it runs the programs")


@pytest.mark.parametrize("batch, images", [((), 1), ((), 3), ((2,), 2)])
def test_the_program_computes_what_the_model_does(tmp_path, batch, images) -> None:
    made = program.of_model(model("DeiT with distillation token"), activation="softmax")
    (name,) = onnx.write(tmp_path, made, batch)
    pixels = np.random.default_rng(0).integers(0, 256, made.image_shape(images), dtype=np.uint8)
    expected = jax.device_get(jax.jit(made)(made.arrays, pixels))
    assert_close(onnx.loaded(tmp_path, name, made)(pixels), expected)


def test_what_the_format_lacks_is_one_line(tmp_path) -> None:
    made = program.of_model(model("ResNet"), activation="softmax")
    (name,) = onnx.write(tmp_path, made, ())
    pixels = np.zeros(made.image_shape(2), np.uint8)
    with pytest.raises(ValueError, match="ResNet cannot be written as ONNX: .*MaxPool"):
        onnx.loaded(tmp_path, name, made)(pixels)
    swin = program.of_model(model("Swin"), activation="softmax")
    with pytest.raises(ValueError, match="Swin cannot be written as ONNX: .*give a fixed --batch"):
        onnx.write(tmp_path, swin, ())
