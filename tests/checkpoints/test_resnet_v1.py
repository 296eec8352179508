"""ResNets with batch norm are read from and written to the names of timm and torchvision."""

import json
import math
import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.checkpoints import torch_resnets
from tests.compare import assert_close
from vit_jax.checkpoints import surgery
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm import resnet_v1
from vit_jax.models import zoo

# What PyTorch computes with the arrays and images of `torch_resnets`.
PYTORCH = json.loads((pathlib.Path(__file__).parent / "torch_resnets.json").read_text())


@pytest.fixture(params=torch_resnets.SIZES)
def released(request, tmp_path) -> tuple[str, pathlib.Path]:
    path = tmp_path / "resnet.safetensors"
    safetensors_numpy.save_file(torch_resnets.arrays(request.param), path)
    return request.param, path


def test_logits_are_those_of_pytorch(released) -> None:
    name, path = released
    model = vit_jax.load(path)
    assert_close(model(torch_resnets.images()), PYTORCH[name]["logits"])


def test_a_written_file_has_the_same_arrays(released, tmp_path) -> None:
    name, path = released
    with pytest.warns(UserWarning, match="has no ResNet with root="):
        vit_jax.save(vit_jax.load(path), tmp_path / "out", layout="timm")
    written = safetensors_numpy.load_file(tmp_path / "out/model.safetensors")
    theirs = torch_resnets.arrays(name)
    # PyTorch adds the missing counts of batches when it reads the file.
    assert set(theirs) - set(written) == {n for n in theirs if n.endswith("num_batches_tracked")}
    for array_name, array in written.items():
        np.testing.assert_array_equal(array, theirs[array_name])
    assert vit_jax.load(tmp_path / "out").options == vit_jax.load(path).options


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ResNet-18", 11_689_512), ("ResNet-50", 25_557_032), ("ResNet-152", 60_192_808)],
)
def test_published_sizes_have_the_parameters_of_torchvision(name, parameters) -> None:
    shapes = surgery.shapes(zoo.options(name))
    trained = [math.prod(s) for p, s in shapes.items() if not p.endswith(("/mean", "/variance"))]
    assert sum(trained) == parameters


def test_a_missing_stage_is_named(tmp_path) -> None:
    arrays = torch_resnets.arrays("basic")
    named = {name.replace("layer2.", "layer3."): array for name, array in arrays.items()}
    safetensors_numpy.save_file(named, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"stages are \[1, 3\]: some are missing"):
        vit_jax.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "resnetaa50"}, r"a ResNet with anti-aliasing \(resnetaa50\)"),
        ({"architecture": "resnetblur18"}, r"a ResNet with anti-aliasing \(resnetblur18\)"),
        ({"model_args": {"aa_layer": "blurpool"}}, "a model with aa_layer='blurpool'"),
        ({"model_args": {"act_layer": "silu"}}, "a model with act_layer='silu'"),
        ({"model_args": {"output_stride": 16}}, "a model with output_stride=16"),
        ({"model_args": {"block_args": {"attn_layer": "gc"}}}, "a model with block_args="),
    ],
)
def test_variants_with_the_same_arrays_are_refused(config, message) -> None:
    arrays = torch_resnets.arrays("bottleneck")
    with pytest.raises(ValueError, match=f"{message}.* is not supported"):
        resnet_v1.LAYOUT.infer(arrays, Hints(config=config))


def test_arguments_that_the_arrays_show_are_accepted() -> None:
    arrays = torch_resnets.arrays("bottleneck")
    given = {"in_chans": 3, "drop_path_rate": 0.1, "act_layer": "relu", "aa_layer": None}
    config = {"architecture": "resnet50", "global_pool": "avg", "model_args": given}
    found = resnet_v1.LAYOUT.infer(arrays, Hints(config=config))
    assert found == resnet_v1.LAYOUT.infer(arrays, Hints())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"depths": ()}, "depths is"), ({"width": 0}, "width 0 must be positive")],
)
def test_sizes_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        zoo.options("ResNet-18", **changes)
