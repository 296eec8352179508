"""ONNX Runtime computes what the model does, at any batch size, or one line says what it lacks."""

import pathlib

import numpy as np
import pytest

from tests.compare import assert_close
from tests.export.families import OPTIONS, model
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


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_program_of_a_family_computes_what_the_model_does(kind, tmp_path) -> None:
    made = program_lib.of_model(model(kind), activation="softmax")
    batches = (2,) if kind == "Swin" else ()
    run = onnx.loaded(tmp_path, written(tmp_path, made, *batches))
    for images in batches or (1, 3):
        assert_close(run(pixels(made, images)), parity.of_program(made)(pixels(made, images)))


@pytest.mark.parametrize("batches", [(), (2,)])
def test_kernels_in_int8_give_what_the_model_with_them_does(tmp_path, batches) -> None:
    exact = program_lib.of_model(model("DeiT with distillation token"), activation="softmax")
    made = exact.with_weights("int8")
    run = onnx.loaded(tmp_path, written(tmp_path, made, *batches))
    assert_close(run(pixels(made, 2)), parity.of_program(made)(pixels(made, 2)))


def test_what_the_format_lacks_is_one_line(tmp_path, monkeypatch) -> None:
    swin = program_lib.of_model(model("Swin"), activation="softmax")
    with pytest.raises(ValueError, match="Swin cannot be written as ONNX: .*give a fixed --batch"):
        written(tmp_path, swin)

    def lacks(*_: object) -> None:
        raise NotImplementedError("no such operation\nand more about it")

    monkeypatch.setattr(onnx, "_computed", lacks)
    with pytest.raises(ValueError) as error:
        written(tmp_path, swin, 2)
    expected = "Swin cannot be written as ONNX: no such operation: use --format stablehlo"
    assert str(error.value) == expected
