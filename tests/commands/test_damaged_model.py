"""A model whose outputs are not numbers is not measured as if it guessed the first class."""

import numpy as np
import PIL.Image
import pytest

from tests import cli
from tests.models import tiny
from vit_jax.checkpoints import load, save
from vit_jax.models.preprocessing import Preprocessing

RECIPE = """
from vit_jax.config import default_config

def get_config():
    config = default_config()
    config.model.name = "Ti/8"
    config.image_size = (16, 24)
    config.batch_size = 4
    config.eval_batch_size = 4
    config.data.source = "image_folder"
    config.data.path = {path!r}
    return config
"""


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "abcde":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(tmp_path / f"data/{split}/{name}/{number}.png")
    return tmp_path / "data"


@pytest.fixture
def damaged(tmp_path):
    options = tiny.options()
    params = tiny.params(options)
    params["encoder/norm/scale"] = params["encoder/norm/scale"] * np.float32("nan")
    model = load.assemble(options, params)
    model.preprocessing = Preprocessing(image_size=(16, 24))
    model.class_names = tuple("abcde")
    save.save(model, tmp_path / "model.npz")
    return tmp_path / "model.npz"


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("held_out", (), "loss is nan: the outputs of the model are not finite numbers"),
        ("knn", ("k=1",), "x/top1 is nan: the outputs of the model are not finite numbers"),
        ("linear_probe", ("epochs=11",), "the features of 10 of 10 images"),
    ],
)
def test_it_is_one_line_and_no_accuracy(kind, fields, said, images, damaged, tmp_path, capsys):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(path=str(images)))
    given = [f"--config.evaluators.x.{field}" for field in (f"kind={kind}", *fields)]
    extra = [] if kind == "held_out" else [*given, "--only", "x"]
    assert cli.run("evaluate", "--workdir", damaged, "--config", recipe, *extra) == 1
    printed = capsys.readouterr()
    assert said in printed.err and "top-1" not in printed.out
