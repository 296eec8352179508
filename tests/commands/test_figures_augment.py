"""`figures --augment` draws a picture of each augmentation of a recipe."""

import numpy as np
import PIL.Image
import pytest

from tests import cli, runs
from vit_jax.commands import augmentations, configs

ORDER = "--config.augment=('three_augment','flip','value_range','mix','erase')"
DRAW = ("--augment", "--config", "RECIPE", "-o", "there")


@pytest.fixture
def recipe(tmp_path) -> str:
    return str(runs.write_recipe(tmp_path))


def test_each_augmentation_has_a_picture(recipe, tmp_path, capsys) -> None:
    folder = tmp_path / "new" / "pictures"
    assert cli.run("figures", "--augment", "--config", recipe, "-o", folder, ORDER) == 0
    names = [f"augment_{name}.png" for name in ("three_augment", "flip", "mix", "erase")]
    assert capsys.readouterr().out.split() == [str(folder / name) for name in names]
    for name in names:
        with PIL.Image.open(folder / name) as picture:
            assert min(picture.size) > 200 and len(set(picture.convert("L").tobytes())) > 100


def test_augmentations_see_the_normalisation_of_the_run(recipe) -> None:
    """What is erased by zeros has the mean of the config; RandAugment fills with the model's."""
    one = ("--config.augment=('value_range','erase')", "--config.augment.erase.fill=zero")
    mean = ("--config.data.mean=0.2,0.4,0.8", "--config.data.std=0.3,0.3,0.3")
    erase = "--config.augment.erase.probability=1"
    config = configs.from_file(recipe, [*one, *mean, erase, "--config.augment.erase.area=0.3,0.3"])
    data = augmentations.normalised(config, 3).data
    images = np.zeros((1, 20, 20, 3), np.uint8)
    found = augmentations.on_device(config.augment[1], images, data=data, seed=0)
    colours = {tuple(colour) for colour in found.reshape(-1, 3).tolist()}
    assert colours == {(0, 0, 0), (51, 102, 204)}

    deit = configs.from_file("configs/deit.py", [])
    assert augmentations.normalised(deit, 3).data.mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--augment", "-o", "there"), "give --config or --workdir"),
        (("--augment", "--config", "RECIPE"), "give a folder, -o FOLDER or --workdir"),
        (("--config", "RECIPE"), "--config is for the pictures of augmentations: add --augment"),
        ((), "figures draws a run: give its --workdir"),
        (
            *(
                (
                    "--augment",
                    "--config",
                    "RECIPE",
                    "-o",
                    "there",
                    "--config.augment=('value_range',)",
                ),
            ),
            "no augmentation that changes images",
        ),
        (
            *(("--augment", "--config", "RECIPE", "-o", "there", "--config.augment=('flip',)"),),
            "lacks value_range",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    recipe, tmp_path, capsys, arguments, message, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [recipe if argument == "RECIPE" else argument for argument in arguments]
    assert cli.run("figures", *given) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not (tmp_path / "there").exists()
