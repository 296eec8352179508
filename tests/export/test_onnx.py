"""ONNX Runtime computes what the model does, at any batch size, or one line says what it lacks."""

import pathlib

import numpy as np
import pytest

from tests.compare import assert_close
from tests.export.families import model
from vit_jax.export import onnx, parity
from vit_jax.export import program as program_lib
from vit_jax.export.program import Program, Variant

pytest.importorskip("jax2onnx", reason="pip cannot install it beside orbax-checkpoint 0.12")
pytest.importorskip("onnxruntime", reason="it runs the programs")


def written(folder: pathlib.Path, program: Program, *batches: int) -> Variant:
    (variant,) = program_lib.variants([program], batches, suffix=onnx.SUFFIX)
    onnx.write(folder, [variant])
    return variant


def pixels(program: Program, batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, program.image_shape(batch), dtype=np.uint8)


@pytest.mark.parametrize("batches, images", [((), 1), ((), 3), ((2,), 2)])
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_program_computes_what_the_model_does(tmp_path, batches, images, kind) -> None:
    made = program_lib.of_model(model("DeiT with distillation token"), activation="softmax")
    program = made.with_weights(kind)
    run = onnx.loaded(tmp_path, written(tmp_path, program, *batches))
    found, expected = run(pixels(made, images)), parity.of_program(program)(pixels(made, images))
    assert_close(found, expected)


def test_what_the_format_lacks_is_one_line(tmp_path) -> None:
    made = program_lib.of_model(model("ResNet"), activation="softmax")
    for batches in ((), (2,)):
        variant = written(tmp_path, made, *batches)
        with pytest.raises(
            ValueError, match="ResNet cannot be written as ONNX: .*MaxPool"
        ) as error:
            onnx.loaded(tmp_path, variant)(pixels(made, 2))
        assert ("give a fixed --batch" in str(error.value)) == (not batches)
    swin = program_lib.of_model(model("Swin"), activation="softmax")
    with pytest.raises(ValueError, match="Swin cannot be written as ONNX: .*give a fixed --batch"):
        written(tmp_path, swin)
