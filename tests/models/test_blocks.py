"""The blocks of a stage run in the order of their numbers, also with ten and more of them."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import vit_jax
from tests import cli
from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import load, run_folder
from vit_jax.models import zoo

SIZES: dict[str, dict[str, Any]] = {
    "ResNet-18": {"depths": (1, 11), "width": 4, "root": "cifar", "num_classes": 3},
    "RegNetY-160": {
        **{"depths": (1, 11), "widths": (8, 16), "stem_width": 4, "group_width": 4},
        "num_classes": 3,
    },
    "DALL-E-dVAE": {"blocks": 11, "groups": 2, "hidden": 8, "vocabulary": 6, "code_width": 4},
}


def made(name: str) -> Any:
    options = zoo.options(name, image_size=(16, 16), **SIZES[name])
    return load.assemble(options, tiny.params(options))


def stages(model: Any) -> list[tuple[Any, str]]:
    """Each holder of a stage with ten and more blocks, and the name of the stage."""
    holders = [model.encoder, model.decoder] if hasattr(model, "decoder") else [model]
    names = ("group1", "group2", "stage2")
    found = [(h, name) for h in holders for name in names if hasattr(h, name)]
    return [(h, name) for h, name in found if len(getattr(h, name)) > 9]


def output(model: Any, images: jax.Array) -> np.ndarray:
    """Logits of classes or of visual tokens; of a dVAE, with pixels that its decoder makes."""
    logits = np.asarray(model(images))
    if not hasattr(model, "decoder"):
        return logits
    return np.append(logits, model.decode(model(images)))


@pytest.mark.parametrize("name", SIZES)
def test_merging_a_model_does_not_change_the_order_of_its_blocks(name) -> None:
    model, images = made(name), tiny.images(size=(16, 16))
    assert stages(model)
    merged = nnx.merge(*nnx.split(model))
    assert_close(output(merged, images), output(model, images), rtol=1e-6)
    for holder, stage in stages(model):
        blocks = getattr(holder, stage)
        named = {key: blocks[key] for key in sorted(blocks)}
        numbers = {f"block{i}": named[key] for i, key in enumerate(named, 1)}
        setattr(holder, stage, nnx.Dict(numbers))
    other = output(model, images)
    assert np.abs(other - output(merged, images)).max() > 5e-6, "the order of the names is another"


def as_trained_before(run: pathlib.Path, *, converted: bool = False) -> None:
    """Makes a run that `save` wrote look like one of an earlier version."""
    card = json.loads((run / "model.json").read_text())
    assert card["format"] == 3
    (run / "model.json").write_text(json.dumps(card | {"format": 2}))
    if not converted:
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | {"optimizer": {"name": "sgd"}}))


@pytest.mark.parametrize("name", SIZES)
def test_a_model_that_an_earlier_version_trained_computes_what_it_did(
    name, tmp_path, caplog
) -> None:
    """Its blocks ran in the order of their names: block1, block10, block11, block2."""
    model, images = made(name), tiny.images(size=(16, 16))
    vit_jax.save(model, tmp_path / "run")
    as_trained_before(tmp_path / "run")
    loaded = vit_jax.load(tmp_path / "run")
    assert "an earlier version trained it" in caplog.text
    for holder, stage in stages(model):
        blocks = getattr(holder, stage)
        by_name = [blocks[key] for key in sorted(blocks)]
        setattr(holder, stage, nnx.Dict({f"block{i}": b for i, b in enumerate(by_name, 1)}))
    assert_close(output(loaded, images), output(model, images), rtol=1e-6)
    vit_jax.save(loaded, tmp_path / "new")
    assert_close(output(vit_jax.load(tmp_path / "new"), images), output(model, images), rtol=1e-6)


def test_a_run_of_an_earlier_version_is_not_evaluated_in_another_order(tmp_path, capsys) -> None:
    vit_jax.save(made("ResNet-18"), tmp_path / "run")
    as_trained_before(tmp_path / "run")
    assert cli.run("evaluate", "--workdir", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "ran the blocks of a stage in another order: `vit_jax convert " in said
    with pytest.raises(ValueError, match="was trained by an earlier version of vit_jax"):
        run_folder.read_card(tmp_path / "run")


def test_a_released_file_that_was_converted_before_has_the_right_order(tmp_path) -> None:
    model, images = made("ResNet-18"), tiny.images(size=(16, 16))
    vit_jax.save(model, tmp_path / "run")
    as_trained_before(tmp_path / "run", converted=True)
    loaded = vit_jax.load(tmp_path / "run")
    assert_close(output(loaded, images), output(model, images), rtol=1e-6)


def test_other_models_have_the_format_that_earlier_versions_read(tmp_path) -> None:
    vit_jax.save(tiny.model(), tmp_path / "run")
    assert json.loads((tmp_path / "run/model.json").read_text())["format"] == 2
