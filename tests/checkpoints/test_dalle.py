"""The discrete VAE of DALL-E: its released form is read as data, and computes the same.

`dalle/` has a tiny encoder, pickled by DALL-E's code with random weights as its release is, and
the arrays of a decoder with their results.
"""

import pathlib
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.compare import assert_close
from vit_jax.checkpoints import files, surgery, torch_module, torch_pickle
from vit_jax.data.augment import normalize
from vit_jax.models import zoo

FOLDER = pathlib.Path(__file__).parent / "dalle"


@pytest.fixture(scope="module")
def numbers() -> Any:
    return np.load(FOLDER / "numbers.npz")


@pytest.fixture
def both(tmp_path, numbers) -> pathlib.Path:
    """A file of encoder and decoder."""
    encoder = files.read_arrays(FOLDER / "encoder.pkl")
    arrays = {f"encoder.{name}": array for name, array in encoder.items()}
    arrays |= {name: numbers[name] for name in numbers if name.startswith("decoder.")}
    path = tmp_path / "both.safetensors"
    safetensors_numpy.save_file(arrays, path)
    return path


def images(model: Any, numbers: Any) -> Any:
    expects = model.preprocessing
    return normalize(numbers["images"], mean=expects.mean, std=expects.std)


def test_the_pickled_encoder_gives_the_same_logits(numbers) -> None:
    model: Any = vit_jax.load(FOLDER / "encoder.pkl")
    assert (model.options.hidden, model.options.vocabulary) == (4, 12)
    assert model.options.image_size == (112, 112) and not model.options.reconstructs
    given = images(model, numbers)
    assert given.min() == pytest.approx(0.1, abs=0.01) and given.max() <= 0.9001
    assert_close(model(given), numbers["expected_logits"])


def test_encoder_and_decoder_give_the_same_pixels(numbers, both) -> None:
    model: Any = vit_jax.load(both, image_size=(16, 24))
    logits = model(images(model, numbers))
    assert_close(model.decode(jnp.asarray(softmax(logits))), numbers["expected_soft"])
    hard = np.eye(12, dtype=np.float32)[logits.argmax(-1)]
    assert_close(model.decode(jnp.asarray(hard)), numbers["expected_hard"])


def softmax(logits: Any) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def test_it_is_written_as_it_was_read(both, tmp_path) -> None:
    vit_jax.save(vit_jax.load(both), tmp_path / "again.safetensors", layout="dalle")
    before, after = files.read_arrays(both), files.read_arrays(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_a_saved_tokenizer_is_loaded_again_without_its_decoder(both, tmp_path, numbers) -> None:
    model: Any = vit_jax.load(both)
    vit_jax.save(model, tmp_path / "run")
    alone: Any = vit_jax.load(tmp_path / "run", reconstructs=False)
    assert not hasattr(alone, "decoder")
    given = images(model, numbers)
    np.testing.assert_array_equal(alone(given), model(given))


def test_the_zoo_has_the_sizes_of_dall_e() -> None:
    """The numbers of parameters of the released encoder and decoder."""
    shapes = surgery.shapes(zoo.options("DALL-E-dVAE"))
    sizes = dict.fromkeys(("encoder", "decoder"), 0)
    for path, shape in shapes.items():
        sizes[path.split("/")[0]] += int(np.prod(shape))
    assert sizes == {"encoder": 53_786_240, "decoder": 43_829_766}
    assert shapes["encoder/group4/block1/conv1/kernel"] == (3, 3, 1024, 512)
    assert shapes["decoder/input/kernel"] == (1, 1, 8192, 128)


def test_a_decoder_alone_is_refused(numbers, tmp_path) -> None:
    arrays = {
        name.removeprefix("decoder."): numbers[name]
        for name in numbers
        if name.startswith("decoder.")
    }
    safetensors_numpy.save_file(arrays, tmp_path / "decoder.safetensors")
    with pytest.raises(ValueError, match="the decoder of a discrete VAE alone"):
        vit_jax.load(tmp_path / "decoder.safetensors")


def test_a_module_of_other_code_is_refused(tmp_path) -> None:
    with zipfile.ZipFile(FOLDER / "encoder.pkl") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "encoder.pkl", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data.replace(b"dall_e.utils\nConv2d", b"os\nsystem"))
    with pytest.raises(ValueError, match="it names os.system, which could run code"):
        vit_jax.load(tmp_path / "encoder.pkl")


def test_modules_that_contain_themselves_are_refused() -> None:
    """They would be read for ever."""
    module = torch_pickle.Module({})
    module.attributes = {"_modules": {"inner": module}}
    with pytest.raises(ValueError, match="a module, or a part of one, that is used twice"):
        torch_module.tensors(module)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 6}, "hidden is 6: it must be a multiple of 4"),
        ({"vocabulary": 0}, "vocabulary is 0: it must be positive"),
        ({"groups": 13}, "must be at most 12"),
        ({"image_size": (112, 100)}, r"image_size is \(112, 100\): both .* multiples of 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        zoo.options("DALL-E-dVAE", **changes)
