"""Files for the original code: what it lacks is noted or refused when a file is written."""

from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from vit_jax.checkpoints import files, load, save, surgery
from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.swin import SwinOptions

BEIT: dict[str, Any] = {
    "key_bias": False, "position": "none", "layer_scale": 0.1, "class_token": True,
    "relative_bias": "shared",
}  # fmt: skip
MAE: dict[str, Any] = {
    "class_token": True, "num_classes": 0, "fixed_position": True,
    "decoder": DecoderOptions(width=16, depth=1, mlp_dim=32, num_heads=2),
}  # fmt: skip
RESNET: dict[str, Any] = {"image_size": (32, 32), "depths": (1, 1, 1, 1), "num_classes": 3}


def vit(**changes: Any) -> Any:
    sizes: dict[str, Any] = {"image_size": (16, 16), "patch_size": (4, 4), "width": 24, "depth": 1}
    sizes |= {"mlp_dim": 32, "num_heads": 3, "num_classes": 3}
    return zoo.of_parts(**sizes | {"activation": "gelu_erf", "norm_eps": 1e-6} | changes)


def checkpoint(options: Any) -> load.Checkpoint:
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options).items()
    params = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes}
    if not getattr(options, "key_bias", True):
        params["encoder/blocks/attention/qkv/bias"][:, 1] = 0
    preprocessing = Preprocessing(image_size=options.image_size)
    return load.Checkpoint(options=options, params=params, preprocessing=preprocessing)


ABSENT: list[tuple[str, Any, str]] = [
    ("timm", vit(representation_size=8, num_classes=0), "representation_size"),
    ("timm", vit(input_norm=True), "patch_bias=True with input_norm"),
    ("timm", vit(**BEIT, qk_norm=True), "BEiT with qk_norm"),
    ("timm", vit(class_token=True, relative_bias="shared"), "relative biases with key_bias"),
    ("timm", vit(distillation=True, registers=2, register_position=True),
     "distillation with registers"),
    ("timm", vit(**BEIT, mask_token=True), "BEiT with a mask_token"),
    ("timm", ResNetOptions(**RESNET, root="cifar"),
     "ResNet with root='cifar'"),
    ("timm", ResNetOptions(**RESNET, width=16),
     "ResNet with root='imagenet', width=16"),
    ("beit", vit(**BEIT, mask_token=True), "mask_token in a class"),
    ("deit", vit(position="none"), "position='none'"),
    ("deit", vit(distillation=True, layer_scale=0.1), "distillation with LayerScale"),
    ("mae", vit(position="none"), "position='none'"),
    ("mae", vit(**MAE, qkv_bias=False), "decoder with qkv_bias=False"),
    ("mae", vit(**MAE, image_size=(16, 8)), "decoder for images that are not square"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "options", "part"), ABSENT)
def test_a_part_that_the_original_code_lacks_is_noted(layout, options, part, tmp_path):
    path = tmp_path / "m.pth"
    notes = save.write(checkpoint(options), path, layout=layout)
    expected = f"reads this file right: the original code of the {layout} layout has no {part}"
    assert any(expected in note for note in notes), notes
    again = load.read(path)
    for name, array in checkpoint(options).params.items():
        np.testing.assert_array_equal(again.params[name], array)


@pytest.mark.parametrize(
    ("layout", "changes", "rows"),
    [
        ("timm", {"distillation": True, "class_position": False}, 2),
        ("deit", {"distillation": True, "class_position": False}, 2),
        ("timm", {"key_bias": False, "class_position": False}, 1),
        ("deit", {"layer_scale": 0.1}, 0),
    ],
)
def test_positions_have_the_rows_of_the_originals_class(layout, changes, rows, tmp_path):
    original, path = checkpoint(vit(**changes)), tmp_path / "m.pth"
    assert save.write(original, path, layout=layout) == ()
    table = files.read_arrays(path)["pos_embed"]
    assert table.shape[1] == 16 + rows
    assert not table[:, :rows].any()
    again = load.read(path, num_heads=3)
    images = np.ones((1, 16, 16, 3), np.float32)
    logits = [load.assemble(one.options, one.params)(images) for one in (original, again)]
    assert_close(logits[1], logits[0], atol=1e-5)


@pytest.mark.parametrize("layout", ["deit", "mae"])
def test_an_average_beside_a_class_token_is_refused_by_layouts_without_it(layout, tmp_path):
    options = vit(pool="gap", class_token=True)
    with pytest.raises(ValueError, match=f"the {layout} layout cannot hold .*pool='gap'"):
        save.write(checkpoint(options), tmp_path / "m.pth", layout=layout)
    assert not list(tmp_path.iterdir())


def test_positions_of_a_swin_are_refused_by_timms_layout(tmp_path):
    options = SwinOptions(image_size=(16, 16), windows=((2, 2),), width=8, depths=(1,),
                          num_heads=(2,), num_classes=3, position="learned_1d")  # fmt: skip
    with pytest.raises(ValueError, match="cannot hold a Swin with position='learned_1d': timm's"):
        save.write(checkpoint(options), tmp_path / "m", layout="timm")
    assert not list(tmp_path.iterdir())
