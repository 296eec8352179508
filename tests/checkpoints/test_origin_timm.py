"""`convert --check` with timm: every kind of model that timm has gives the same logits."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import parity
from vit_jax.checkpoints import check, layouts, save, surgery
from vit_jax.checkpoints.convert import convert
from vit_jax.checkpoints.layouts.timm import origin
from vit_jax.checkpoints.load import Checkpoint
from vit_jax.models.bit import RESNET_V2, BiTOptions
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import StemOptions
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.swin import SwinOptions

TINY = ViTOptions(
    image_size=(16, 24),
    patch_size=(4, 4),
    width=24,
    depth=1,
    mlp_dim=32,
    num_heads=3,
    num_classes=5,
    activation="gelu_erf",
)
STEM = StemOptions(
    num_layers=(1, 1), root_width=32, std_eps=1e-8, std_eps_in="variance", norm_eps=1e-5
)
BEIT: dict[str, Any] = {"key_bias": False, "layer_scale": 1e-5, "class_token": True}
MODELS: dict[str, Any] = {
    "plain": TINY,
    "of vit_jax": dataclasses.replace(TINY, activation="gelu_tanh"),
    "mean": dataclasses.replace(TINY, pool="gap", norm_at="pooled", image_size=(16, 16)),
    "attention pool": dataclasses.replace(TINY, pool="map", registers=2, class_position=False),
    "registers": dataclasses.replace(TINY, registers=2, class_position=False, layer_scale=1e-5),
    "gated": dataclasses.replace(TINY, mlp="swiglu", mlp_dim=33),
    "distilled": dataclasses.replace(TINY, distillation=True),
    "BEiT per block": dataclasses.replace(
        TINY, **BEIT, position="none", relative_bias="per_block"
    ),
    "BEiT shared": dataclasses.replace(
        TINY, **BEIT, position="none", relative_bias="shared", pool="gap", norm_at="pooled"
    ),
    "hybrid": dataclasses.replace(TINY, stem=STEM, patch_size=(1, 1), image_size=(16, 24)),
    "root": dataclasses.replace(
        TINY, stem=dataclasses.replace(STEM, num_layers=()), image_size=(32, 48)
    ),
    "BiT": BiTOptions(
        image_size=(40, 56),
        num_classes=5,
        stem=dataclasses.replace(
            RESNET_V2, num_layers=(1, 1), root_width=32, widths=(128, 128), std_eps=1e-8,
            pool_padding="zero",
        ),
    ),
    "ResNet": ResNetOptions(image_size=(32, 48), depths=(2, 1, 1, 1), num_classes=5),
    "ResNet of bottlenecks": ResNetOptions(
        image_size=(32, 48), depths=(1, 1, 1, 1), bottleneck=True, num_classes=5
    ),
    "Swin": SwinOptions(
        image_size=(24, 40), width=8, depths=(2, 1), num_heads=(2, 2), windows=((3, 4),),
        num_classes=5,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def _timm() -> None:
    for name in ("torch", "timm"):
        pytest.importorskip(name, reason=f"the original code needs {name}", exc_type=ImportError)


@pytest.mark.usefixtures("_timm")
@pytest.mark.filterwarnings("ignore")  # of other libraries
@pytest.mark.parametrize("name", MODELS)
def test_timm_computes_the_same(name, tmp_path):
    (line,) = check.against_origin(random_checkpoint(MODELS[name]), folder=tmp_path)
    assert difference(line) < 1e-5, line


@pytest.mark.usefixtures("_timm")
@pytest.mark.filterwarnings("ignore")
def test_a_converted_file_is_checked_against_timm(tmp_path):
    checkpoint = random_checkpoint(dataclasses.replace(TINY, distillation=True))
    source = tmp_path / "model.safetensors"
    save.write(checkpoint, source, layout="timm")
    report = convert(source, tmp_path / "run", num_heads=3, grid=(4, 6), check=True)
    line = report.splitlines()[-1]
    assert "timm" in line and difference(line) < 1e-5, report


def test_a_model_that_timm_lacks_is_reported(tmp_path):
    """Without timm installed, the report says so instead."""
    sizes = DecoderOptions(width=8, depth=1, mlp_dim=8, num_heads=2)
    options = parity.changed(TINY, decoder=sizes, num_classes=0)
    (line,) = check.against_origin(random_checkpoint(options), folder=tmp_path)
    assert line.startswith("check: not compared with")


def test_every_model_that_is_written_for_timm_can_be_compared_with_it():
    written = [layout for layout in layouts.LAYOUTS["timm"] if not layout.read_only]
    assert [layout.models for layout in written if not layout.original] == []


@pytest.mark.parametrize("changes", [{"root": "cifar"}, {"width": 8}, {"depths": (1, 1)}])
def test_a_resnet_that_timm_lacks_is_named(changes):
    with pytest.raises(ValueError, match="timm has no ResNet with root="):
        origin.resnet(ResNetOptions(**changes))


def random_checkpoint(options: Any) -> Checkpoint:
    rng = np.random.default_rng(0)
    params = {}
    for path, shape in surgery.shapes(options).items():
        fan_in = max(np.prod(shape[:-1]), 1) if len(shape) > 1 else 4
        params[path] = (rng.normal(size=shape) * fan_in**-0.5).astype(np.float32)
        if path.endswith("/variance"):
            params[path] = np.abs(params[path]) + 0.5
    if not getattr(options, "key_bias", True):
        params["encoder/blocks/attention/qkv/bias"][:, 1] = 0
    return Checkpoint(
        options=options,
        params=params,
        preprocessing=Preprocessing(image_size=options.image_size),
    )


def difference(line: str) -> float:
    """The difference in a line of the report, relative to the largest logit."""
    found = re.search(r"logits differ by (\S+) \(the largest logit is (\S+)\)$", line)
    assert found, line
    return float(found[1]) / float(found[2])
