"""Features of a folder: those of the model, whole or not at all, whatever interrupts them."""

import errno
import io
import json
import pathlib
import shutil

import jax
import numpy as np
import PIL.Image
import pytest
from pyarrow import parquet

import vit_jax
from tests import cli
from tests.models import tiny
from tests.test_multiprocess import LAUNCH
from vit_jax.commands import embedding, embedding_files
from vit_jax.errors import Interrupted

IMAGES, BROKEN = 21, 4  # the number of images, and which of them is broken


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    return tiny.saved(tmp_path_factory.mktemp("model"), image_size=(16, 24))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    (folder / "inner").mkdir()
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        path = folder / ("inner" if number > 9 else "") / f"{number:02d}.png"
        PIL.Image.fromarray(pixels).save(path)
        if number == BROKEN:
            path.write_bytes(b"no image")
    return folder


@pytest.fixture
def embed(model, images, printed, monkeypatch):
    """In parts of 8 images, on 8 devices."""
    monkeypatch.setattr(embedding, "BATCHES", 1)

    def call(output: pathlib.Path, *more: object) -> str:
        return printed("embed", images, output, "--workdir", model, "--batch-size", "8", *more)

    return call


def expected(model: pathlib.Path, images: pathlib.Path, features: str, layer: int | None):
    loaded = vit_jax.load(model)
    names = [name for name in sorted(images.rglob("*.png")) if name.stem != f"{BROKEN:02d}"]
    pixels = vit_jax.read_images(names, loaded)
    if features == "head":
        return np.asarray(jax.jit(lambda x: loaded.features(x))(pixels))
    tokens, between = jax.jit(lambda x: loaded.encoder(x, return_intermediates=True))(pixels)
    found = np.asarray(tokens if layer is None else between.features[layer])
    prefix = loaded.options.prefix_tokens
    if features == "class":
        return found[:, 0]
    return found[:, prefix:] if features == "patches" else found[:, prefix:].mean(axis=1)


@pytest.mark.parametrize(
    ("features", "layer"), [("head", None), ("class", None), ("mean", -2), ("patches", None)]
)
def test_they_are_the_features_of_the_model(
    embed, model, images, tmp_path, features, layer
) -> None:
    more = ("--features", features, *(("--layer", layer) if layer else ()))
    said = embed(tmp_path / "out.npz", *more)
    assert f"{IMAGES} images, 1 of them broken, " in said
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
    with np.load(tmp_path / "out.npz") as found:
        assert found["image"].tolist()[:2] == ["00.png", "01.png"]
        assert found["image"].tolist()[-1] == f"inner/{IMAGES - 1}.png"
        assert np.flatnonzero(found["broken"]).tolist() == [BROKEN]
        values = found["features"]
    assert np.isnan(values[BROKEN]).all()
    wanted = expected(model, images, features, layer)
    np.testing.assert_allclose(np.delete(values, BROKEN, axis=0), wanted, atol=1e-5)


def test_parquet_holds_the_same_and_half_precision_is_rounded(embed, tmp_path) -> None:
    for name in ("a.npz", "a.parquet"):
        embed(tmp_path / name, "--features", "patches", "--dtype", "float16")
    with np.load(tmp_path / "a.npz") as arrays:
        values, names = arrays["features"], arrays["image"].tolist()
    assert values.dtype == np.float16 and values.ndim == 3
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["image"] for row in rows] == names
    assert [row["broken"] for row in rows] == [n == BROKEN for n in range(IMAGES)]
    np.testing.assert_array_equal(np.array([row["features"] for row in rows]), values)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, Interrupted])
def test_a_command_that_was_interrupted_goes_on(
    embed, tmp_path, monkeypatch, capsys, interrupt
) -> None:
    embed(tmp_path / "whole.npz")
    real, written = embedding_files.write_part, []

    def write(folder, number, part, *, dtype):
        if number == 1 and written == [0]:
            written.clear()
            raise interrupt
        written.append(number)
        real(folder, number, part, dtype=dtype)

    monkeypatch.setattr(embedding_files, "write_part", write)
    with pytest.raises(AssertionError, match="130"):
        embed(tmp_path / "out.npz")
    assert capsys.readouterr().err == "vit_jax: interrupted: the same command goes on\n"
    assert not (tmp_path / "out.npz").exists()
    embed(tmp_path / "out.npz")
    assert written == [1, 2], "the first part was kept"
    with np.load(tmp_path / "out.npz") as found, np.load(tmp_path / "whole.npz") as whole:
        for name in ("features", "image", "broken"):
            np.testing.assert_array_equal(found[name], whole[name])


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("preprocessing", "mean", [0.1] * 3), ("options", "activation", "gelu_erf")],
)
def test_parts_of_other_features_are_not_joined(
    part, name, value, model, images, tmp_path, monkeypatch, refused
) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run)
    monkeypatch.setattr(embedding, "BATCHES", 1)
    command = ("embed", images, tmp_path / "out.npz", "--workdir", run, "--batch-size", "8")

    def stop(folder, number, part, *, dtype):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(embedding_files, "write_part", stop)
        assert cli.run(*command) == 130
    card = json.loads((run / "model.json").read_text())
    card[part][name] = value
    (run / "model.json").write_text(json.dumps(card))
    said = refused(*command)
    assert f"holds parts of other features (other {part}): repeat that command" in said


def archive(rows: int, *, width: int = 16, dtype: str = "float32", marks: str = "bool") -> bytes:
    file = io.BytesIO()
    np.savez(file, features=np.zeros((rows, width), dtype), broken=np.zeros(rows, marks))
    return file.getvalue()


def damage(damaged: int, content: bytes):
    """A `write_part` that leaves this content in one of the parts."""
    real = embedding_files.write_part

    def write(folder, number, part, *, dtype):
        real(folder, number, part, dtype=dtype)
        if number == damaged:
            (folder / f"{number:06d}.npz").write_bytes(content)

    return write


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"PK\3\4", archive(8)[:-30], np.lib.format.magic(1, 0)),
        *(archive(7), archive(9)),
        *(archive(8, dtype="float64"), archive(8, marks="int64")),
    ],
    ids=["empty", "cut", "cut_late", "npy", "fewer", "more", "double", "marks"],
)
def test_a_damaged_part_is_named_and_nothing_is_written(
    embed, tmp_path, monkeypatch, capsys, content
) -> None:
    with monkeypatch.context() as damaged:
        damaged.setattr(embedding_files, "write_part", damage(1, content))
        with pytest.raises(AssertionError, match="2"):
            embed(tmp_path / "out.npz")
    parts = tmp_path / "out.npz.parts"
    said = f"{parts / '000001.npz'} is damaged: remove it, the same command makes it again\n"
    assert capsys.readouterr().err == f"vit_jax: {said}"
    assert [path.name for path in tmp_path.iterdir()] == [parts.name]
    (parts / "000001.npz").unlink()
    assert f"{IMAGES} images, 1 of them broken" in embed(tmp_path / "out.npz")


def test_parts_of_different_shapes_are_not_joined(embed, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(embedding_files, "write_part", damage(0, archive(8, width=17)))
    with pytest.raises(AssertionError, match="2"):
        embed(tmp_path / "out.npz")
    assert "out.npz.parts is damaged: its parts have different shapes" in capsys.readouterr().err


def test_two_processes_write_each_image_once_into_one_file(embed, model, images, tmp_path) -> None:
    embed(tmp_path / "one.npz")
    command = ("embed", images, tmp_path / "two.npz", "--workdir", model, "--batch-size", "1")
    ended = cli.process(*command, program=LAUNCH)  # in two parts, of 16 and of 5 images
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"{IMAGES} images, 1 of them broken, ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        for name in ("image", "broken"):
            np.testing.assert_array_equal(two[name], one[name])
        np.testing.assert_allclose(two["features"], one["features"], atol=1e-5)


def test_a_full_disk_is_told_in_one_line(model, images, tmp_path, refused, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "out.npz"
    monkeypatch.setattr(embedding_files, "_write_npz", full)
    said = refused("embed", images, output, "--workdir", model)
    assert f"{output} cannot be written: No space left on device" in said
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz.parts"]
    monkeypatch.setattr(embedding_files.place, "write_whole", full)
    said = refused("embed", images, tmp_path / "b.npz", "--workdir", model)
    assert (
        f"{tmp_path / 'b.npz.parts/embed.json'} cannot be written: No space left on device" in said
    )


def test_what_cannot_be_written_is_refused(embed, model, images, tmp_path, refused) -> None:
    command = ("embed", images)
    run = ("--workdir", model)
    for arguments, said in (
        ((tmp_path / "out.csv",), "must end in .parquet or .npz"),
        ((tmp_path / "no" / "out.npz",), "there is no folder"),
        (
            (tmp_path / "out.npz", "--batch-size", 2**20 + 1),
            "'1048577': it must be at most 1048576",
        ),
        ((tmp_path / "out.npz", "--layer", "2"), "--layer is for --features class, mean"),
        ((tmp_path / "out.npz", "--features", "mean", "--layer", "9"), "the blocks 1 to 3"),
    ):
        assert said in refused(*command, *arguments, *run, folder=tmp_path)
    assert "/proc/x.npz cannot be written: " in refused(*command, "/proc/x.npz", *run)
    (tmp_path / "out.npz").write_text("kept")
    assert "exists: choose another name" in refused(*command, tmp_path / "out.npz", *run)
    parts = tmp_path / "new.npz.parts"
    parts.mkdir()
    (parts / "embed.json").write_text("{}")
    assert "holds parts of other features" in refused(*command, tmp_path / "new.npz", *run)
    for content in (b"\xff\xfe", b"1" * 5000, b'{"image'):
        (parts / "embed.json").write_bytes(content)
        said = refused(*command, tmp_path / "new.npz", *run)
        assert "new.npz.parts/embed.json is damaged: " in said and "remove the folder" in said
    assert cli.run(*command, tmp_path / "x.npz", "--workdir", tmp_path / "none") == 2
