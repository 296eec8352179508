"""`figures --augment` draws a picture of each augmentation of a recipe."""

import PIL.Image
import pytest

from tests import cli, runs

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
