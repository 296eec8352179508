"""A broken image is reported once a run, by its name; too many end the run and keep it."""

import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest

from tests import cli, runs
from tests.compare import assert_same_bits
from vit_jax.checkpoints import store
from vit_jax.training import run_config


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> pathlib.Path:
    text = runs.RECIPE.replace("512", "8").replace("= 16", "= 8", 1)
    return runs.write_recipe(tmp_path_factory.mktemp("recipe"), text)


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for name in "ab":
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (24, 32, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return tmp_path / "images"


def train(recipe, workdir, images, *overrides: str) -> int:
    data = ["--config.data.source=image_folder", f"--config.data.path={images}"]
    more = ["--config.total.steps=8", "--config.evaluate_every.steps=2", *overrides]
    return cli.train(recipe, workdir, *data, *more)


def reports(text: str) -> list[str]:
    return re.findall(r"broken image (\S+): ", text)


def test_a_broken_image_is_reported_once_by_its_name(recipe, images, tmp_path, caplog, capsys):
    broken = [images / name for name in ("train/a/00.png", "train/b/01.png", "val/a/02.png")]
    broken[0].write_bytes(b"text")
    broken[1].write_bytes(b"")
    broken[2].write_bytes(broken[2].read_bytes()[:60])
    (images / "train/b/02.png").unlink()
    (images / "train/b/02.png").symlink_to("/no/such/image.png")
    broken.append(images / "train/b/02.png")
    assert train(recipe, tmp_path / "run", images, "--config.data.max_bad=0.3") == 0
    assert sorted(reports(caplog.text)) == sorted(map(str, broken))
    assert f"{broken[0]}: cannot decode the image: it begins with b'text'" in caplog.text
    assert f"{broken[1]}: cannot decode the image: the file is empty" in caplog.text
    assert f"{broken[3]}: No such file or directory\n" in caplog.text
    assert "object at 0x" not in caplog.text
    assert "on 11 images, 1 broken left out" in capsys.readouterr().err
    lines = [line for line in runs.lines(tmp_path / "run") if "eval_count" in line]
    assert [(line["eval_count"], line["eval_broken"]) for line in lines] == [(11, 1)] * 4


def test_an_image_of_two_splits_is_reported_once(recipe, images, tmp_path, caplog):
    (images / "train/a/03.png").write_bytes(b"text")
    limits = ["--config.data.max_bad=0.3", "--config.data.eval_split=train"]
    assert train(recipe, tmp_path / "run", images, *limits) == 0
    assert reports(caplog.text) == [str(images / "train/a/03.png")]


def test_too_many_broken_images_end_a_run_that_goes_on_later(recipe, images, tmp_path, capsys):
    workdir, whole = tmp_path / "run", tmp_path / "whole"
    every = ["--config.checkpoint.every.steps=2"]
    assert train(recipe, whole, images, *every) == 0
    held_out = images / "val"
    shutil.copytree(held_out, tmp_path / "copy")
    for name in ("00", "01"):
        (held_out / "a" / f"{name}.png").write_bytes(b"text")
    capsys.readouterr()
    assert train(recipe, workdir, images, *every, "--config.data.max_bad=0.1") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("vit_jax: 2 of 12 images are broken, more than the allowed share 0.1")
    assert "with a larger --config.data.max_bad" in last
    assert run_config.read_config(workdir).total.steps == 8
    later = pathlib.Path(shutil.copytree(workdir, tmp_path / "later"))
    assert train(recipe, workdir, images, *every, "--config.data.max_bad=0.5") == 0
    shutil.copytree(tmp_path / "copy", held_out, dirs_exist_ok=True)
    repaired = ["--config.data.max_bad=0.1", "--config.data.accept_changes=true"]
    assert train(recipe, later, images, *every, *repaired) == 0
    for resumed in (workdir, later):
        assert_same_bits(runs.arrays(resumed), runs.arrays(whole))


def test_a_folder_that_vanishes_ends_the_run_and_keeps_its_checkpoint(
    recipe, images, tmp_path, capsys, monkeypatch
):
    workdir = tmp_path / "run"
    assert train(recipe, workdir, images, "--config.checkpoint.every.steps=2") == 0
    shutil.rmtree(workdir / "checkpoints" / "8")
    listed = images.with_name("gone")
    from vit_jax.training import run as run_lib

    batches = run_lib.batches_of

    def vanish(*args, **kwargs):
        if images.exists():
            images.rename(listed)
        return batches(*args, **kwargs)

    monkeypatch.setattr(run_lib, "batches_of", vanish)
    capsys.readouterr()
    assert train(recipe, workdir, images, "--config.checkpoint.every.steps=2") == 1
    printed = capsys.readouterr().err
    assert "images are broken, more than the allowed share 0.001" in printed.splitlines()[-1]
    assert "Traceback" not in printed
    assert store.saved_steps(workdir)[-1] == 6
    listed.rename(images)
    monkeypatch.undo()
    assert train(recipe, workdir, images, "--config.checkpoint.every.steps=2") == 0
    assert store.saved_steps(workdir)[-1] == 8


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_predict_names_what_is_wrong_with_a_file(recipe, images, tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    from vit_jax.data import preprocess

    with pytest.raises(preprocess.BrokenImageError) as error:
        preprocess.decode(content)
    said = str(error.value)
    assert "object at" not in said and "\n" not in said
    assert said.endswith("the file is empty") == (not content)
