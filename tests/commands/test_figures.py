"""`figures` draws what a model has, says what it lacks, and writes nothing if asked for that."""

import functools
import shutil

import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests import cli
from tests.compare import assert_close
from tests.models import tiny
from vit_jax.analysis import attention, attention_figures
from vit_jax.analysis.contract import NoPicture
from vit_jax.checkpoints import load
from vit_jax.commands import subject
from vit_jax.commands.drawings import PICTURES
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.swin import SwinOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A released file of a tiny ViT without classes, and a folder with two images of it."""
    path = tmp_path_factory.mktemp("figures")
    vit_jax.save(tiny.model(num_classes=0, pool="gap"), path / "m.npz")
    rng = np.random.default_rng(0)
    (path / "images" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg"):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path / "images" / name)
    return path


FILE = ("--num-heads", "4")


@pytest.fixture(scope="module")
def converted(folder):
    """The same model as a folder that no training has made."""
    run = folder / "run"
    assert cli.run("convert", folder / "m.npz", run, *FILE, "--grid", "2,3") == 0
    return run


def names(printed: str) -> list[str]:
    return [line.rpartition("/")[2].removesuffix(".png") for line in printed.split()]


def test_pictures_that_a_model_lacks_are_named_with_the_reason(converted, capsys) -> None:
    assert cli.run("figures", "--workdir", converted) == 0
    output, errors = capsys.readouterr()
    assert names(output) == ["filters", "positions"]
    assert all((converted / "pictures" / f"{name}.png").exists() for name in names(output))
    lines = errors.splitlines()
    assert all(line.startswith("vit_jax: not drawn: ") for line in lines)
    left_out = {name for line in lines for name in line.split(": ")[2].split(", ")}
    assert left_out == set(PICTURES) - {"filters", "positions"}
    assert "it needs images: name files or folders" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "relative_bias"), "has no picture relative_bias: the model has no tables of"),
        (("--only", "filter"), "there is no picture 'filter': did you mean"),
        (("--only", "predictions"), "it needs images"),
        (("nothing.png",), "nothing.png: there is no such file or folder"),
        (("--image-size", "17"), "not a multiple of the patch"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(converted, refused, tmp_path, arguments, message):
    there = tmp_path / "there"
    said = refused("figures", "--workdir", converted, "-o", there, *arguments, folder=tmp_path)
    assert message in said


def test_a_released_file_needs_a_folder_or_a_page_for_its_pictures(
    refused, printed, tmp_path
) -> None:
    vit_jax.save(tiny.model(), tmp_path / "m.npz")
    command = ("figures", "--workdir", tmp_path / "m.npz", "--only", "filters")
    said = refused(*command, folder=tmp_path)
    assert "is not a run: give a folder for the pictures, -o" in said
    page = tmp_path / "page.html"
    assert printed(*command, "--html", page) == f"{page}\n"
    text = page.read_text()
    assert text.count("<img src=") == 1 and "<figcaption>Filters</figcaption>" in text
    assert not list(tmp_path.rglob("*.png"))


def test_images_of_folders_are_found_at_any_depth(folder, converted, refused, tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    said = refused("figures", "--workdir", converted, empty, folder=tmp_path)
    assert f"{empty}: it is a folder without images" in said


def test_images_of_a_folder_are_drawn_at_another_size(folder, converted, tmp_path, capsys) -> None:
    """At 32 x 24 pixels, with a grid of 4 x 3: the model was made for 16 x 24."""
    given = ("--image-size", "32,24", "-o", tmp_path / "there", folder / "images")
    assert cli.run("figures", "--workdir", converted, *given) == 0
    output, errors = capsys.readouterr()
    there = ["filters", "positions", "attention_distance", "rollout", "features"]
    assert names(output) == there
    assert "not drawn: attention, attention_layers: the model has no class token" in errors


def test_numbers_do_not_depend_on_the_batches(folder, converted, monkeypatch) -> None:
    def distances() -> np.ndarray:
        images = (str(folder / "images"),)
        of = subject.Subject(workdir=str(converted), files=images, measured=2)
        axes = PICTURES["attention_distance"].draw(of).axes[0]
        return np.stack([line.get_ydata() for line in axes.lines[:4]])

    together = distances()
    assert together.shape == (4, 3) and (together > 1).all(), "4 heads, 3 layers"
    monkeypatch.setattr(subject, "LARGEST_BATCH", 1)
    assert_close(distances(), together, rtol=1e-5)


@pytest.mark.parametrize("pool", ["gap", "token"])
def test_the_rollout_is_of_the_tokens_that_the_output_reads(
    pool, folder, tmp_path, monkeypatch
) -> None:
    """A fine-tuned BEiT has a class token, but pools its patches."""
    model = tiny.model(pool=pool, class_token=True)
    vit_jax.save(model, tmp_path / "m")
    drawn = []
    monkeypatch.setattr(attention_figures, "rollout", lambda images, maps: drawn.append(maps))
    images = sorted(map(str, (folder / "images").rglob("*.*g")))
    of = subject.Subject(workdir=str(tmp_path / "m"), files=tuple(images))
    PICTURES["rollout"].draw(of)
    weights = model.attention_weights(vit_jax.read_images(images, of.model))
    expected = attention.rollout(weights, prefix=1, class_token=pool == "token")
    options = model.options
    over = attention.over_image(
        np.asarray(expected), grid=options.grid, covered=options.covered, size=options.image_size
    )
    assert_close(drawn[0], over, rtol=1e-4)


def test_folders_of_classes_label_the_images(folder, tmp_path) -> None:
    """FOLDER/CLASS/image, if all folders are classes of the model: here numbers up to 4."""
    vit_jax.save(tiny.model(), tmp_path / "m")
    for name in ("3", "1", "x"):
        (tmp_path / "images" / name).mkdir(parents=True)
        shutil.copy(folder / "images" / "a.png", tmp_path / "images" / name)
    of = functools.partial(subject.Subject, workdir=str(tmp_path / "m"))
    with pytest.raises(NoPicture, match="no image has a label"):
        _ = of(files=(str(tmp_path / "images"),)).judged
    shutil.rmtree(tmp_path / "images" / "x")
    found = of(files=(str(tmp_path / "images"),)).judged
    assert list(found.labels) == [1, 3] and found.predicted[0] == found.predicted[1]
    with pytest.raises(NoPicture, match="no image has a label"):
        _ = of(files=(str(tmp_path / "images" / "3"),)).judged


def test_a_model_without_attention_between_all_patches_is_refused(folder, refused, tmp_path):
    options = {"image_size": (16, 32), "width": 8, "depths": (1,), "num_heads": (1,)}
    swin = SwinOptions(windows=((2, 4),), num_classes=0, **options)
    model = load.assemble(swin, tiny.params(swin))
    model.preprocessing = Preprocessing(image_size=(16, 32))
    vit_jax.save(model, tmp_path / "swin")
    command = ("figures", "--workdir", tmp_path / "swin", folder / "images")
    for name in ("attention_distance", "rollout", "attention", "attention_layers"):
        said = refused(*command, "--only", name, folder=tmp_path)
        assert f"has no picture {name}: the model, a Swin, has no attention between all" in said
