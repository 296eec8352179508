"""A teacher's answers from a file: made once, for the same images, used as those of the teacher."""

import json
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.extending.life import Life
from vit_jax.checkpoints import run_folder
from vit_jax.config import default_config, resolve
from vit_jax.data import augment
from vit_jax.data.arrays import EMBEDDED_CLASSES, ArraySource, open_embedded
from vit_jax.data.record import UNKNOWN, DataFacts
from vit_jax.images import transform_of
from vit_jax.models import zoo
from vit_jax.objectives.distillation import Distillation
from vit_jax.training import frozen, labelling, teacher_file

STUDENT = ("--config.model.name=DeiT-distilled-Ti/14", "--config.objective.name=distillation")


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory) -> pathlib.Path:
    """A teacher for larger images, and the files of its answers."""
    folder = tmp_path_factory.mktemp("answers")
    larger = ("--config.image_size=42", "--config.total.steps=2")
    assert cli.train(recipe, folder / "teacher", *larger) == 0
    for name, *more in (("classes",), ("logits", "--logits")):
        given = ("--workdir", folder / "teacher", "--config", recipe, *more)
        assert cli.run("label", *given, "-o", folder / f"{name}.safetensors") == 0
    return folder


def taught_by(path: pathlib.Path, kind: str) -> tuple[str, ...]:
    how = f"--config.objective.distillation={kind}"
    return (*STUDENT, how, f"--config.objective.teacher_file={path}")


def test_the_answers_are_those_of_the_teacher_for_each_image(made) -> None:
    logits = teacher_file.read(made / "logits.safetensors")
    classes = teacher_file.read(made / "classes.safetensors")
    source, model = open_embedded("train"), vit_jax.load(made / "teacher")
    assert logits.rows.shape == (len(source), 10) and classes.rows.shape == (len(source),)
    assert logits.class_names == classes.class_names == EMBEDDED_CLASSES
    transform = transform_of(model)
    for index in (0, 7, len(source) - 1):
        pixels = transform(transform.decode(source.images[index]))[None]
        own = model.preprocessing
        expected = model(augment.normalize(jnp.asarray(pixels), mean=own.mean, std=own.std))[0]
        assert_close(logits.rows[index].astype(np.float32), expected, atol=2e-3)
        assert classes.rows[index] == expected.argmax()
    chosen = np.take_along_axis(logits.rows, classes.rows[:, None], axis=1)
    np.testing.assert_array_equal(chosen, logits.rows.max(axis=1, keepdims=True))


@pytest.mark.parametrize(("kind", "name"), [("hard", "classes"), ("soft", "logits")])
def test_a_run_with_a_file_needs_no_teacher_and_goes_on_with_the_same_bits(
    made, kind, name, tmp_path, monkeypatch, capsys
) -> None:
    mixes = "--config.augment=('flip','value_range','mix')"
    given = taught_by(made / f"{name}.safetensors", kind)
    whole = Life(tmp_path, monkeypatch).lives(*given, mixes)
    line = [line for line in runs.lines(whole) if "distillation_loss" in line][-1]
    assert np.isfinite(line["distillation_loss"])
    told = " ".join(capsys.readouterr().err.split())
    assert f"{name}.safetensors has the answers of {made}/teacher" in told
    record = run_folder.read_json(whole, frozen.NAME)
    assert list(record) == ["teacher_file"]
    assert (
        record["teacher_file"]["digest"] == teacher_file.read(made / f"{name}.safetensors").digest
    )


class Heads:
    def __init__(self, heads) -> None:
        self.heads = heads

    def __call__(self, images, *, key=None, return_heads=False):
        return self.heads


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_loss_is_that_of_a_teacher_with_these_answers(kind) -> None:
    key = jax.random.key(0)
    logits, imitation, answers = jax.random.normal(key, (3, 6, 10), jnp.float16)
    fields = {"distillation": kind, "alpha": 0.3, "temperature": 2.0}
    batch = {"image": jnp.zeros((6, 1, 1, 3)), "label": jnp.arange(6)}
    options = zoo.options("DeiT-distilled-Ti/16", num_classes=10)
    table = answers if kind == "soft" else answers.argmax(-1).astype(jnp.int32)

    def losses(objective, batch, frozen):
        batch = objective.prepare(batch, options=options, key=key)
        return objective.loss(Heads((logits, imitation)), batch, key=key, frozen=frozen).values

    expected = losses(Distillation(teacher="x", **fields), batch, {"teacher": lambda _: answers})
    with_file = Distillation(teacher_file="x", **fields)
    found = losses(with_file, batch | {"teacher_answers": table}, {})
    assert_close(found, expected, rtol=1e-5)
    nothing = jnp.full_like(table, UNKNOWN if kind == "hard" else jnp.nan)
    unknown = losses(with_file, batch | {"teacher_answers": nothing}, {})
    alone = losses(
        Distillation(teacher="x", **(fields | {"alpha": 0.0})),
        batch,
        {"teacher": lambda _: answers},
    )
    assert_close(unknown, alone, rtol=1e-6)


def test_answers_follow_the_order_of_the_classes_and_mark_what_was_not_read(tmp_path) -> None:
    rows = np.array([[3, 1, 2], [0, 5, 1], [np.nan] * 3], np.float16)
    content = teacher_file.Answers(rows=rows, class_names=("a", "b", "c"), data="1", teacher="t")
    path = tmp_path / "f.safetensors"
    teacher_file.write(path, content)
    facts = DataFacts(train_size=3, class_names=("c", "a", "b"), num_classes=3)

    def table(kind):
        objective = Distillation(teacher_file=str(path), distillation=kind)
        return teacher_file.tables(objective, facts, Identity("1"))["teacher_answers"].rows

    np.testing.assert_array_equal(table("soft")[:2], [[2, 3, 1], [1, 0, 5]])
    assert np.isnan(table("soft")[2]).all()
    assert table("hard").tolist() == [1, 2, UNKNOWN]


class Identity:
    def __init__(self, digest: str) -> None:
        self.digest = digest


def changed(path: pathlib.Path, **metadata: str) -> None:
    """Rewrites a file with other metadata."""
    arrays = safetensors_numpy.load_file(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    old = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    safetensors_numpy.save_file(arrays, path, metadata=old | metadata)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("soft", {}, "has classes, and logits are needed: make it again with vit_jax label --log"),
        ("hard", {"digest": "0"}, "is damaged"),
        ("hard", {"data": "0"}, "was made for other data (the digests of the images differ)"),
        ("hard", {"class_names": json.dumps([*"abcdefghij"])}, "was made for other data ("),
        ("hard", {"class_names": "[[["}, "is damaged"),
        ("hard", {"kind": "a model"}, "it was not made by vit_jax label"),
    ],
)
def test_a_file_of_other_data_is_refused(
    made, kind, change, message, tmp_path, monkeypatch, capsys
) -> None:
    path = tmp_path / "f.safetensors"
    shutil.copy(made / "classes.safetensors", path)
    changed(path, **change)
    Life(tmp_path, monkeypatch).refused(*taught_by(path, kind))
    error = capsys.readouterr().err
    assert "config.objective.teacher_file" in error and message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no safetensors at all",
        b"\x08\x00\x00\x00\x00\x00\x00\x00{}",
        *(
            len(header).to_bytes(8, "little") + header + bytes(20)
            for dtype, size in (("F8_E4M3", 20), ("BF16", 20), ("F16", 2**40))
            for header in (
                json.dumps(
                    {
                        "__metadata__": {"kind": "answers of a teacher"},
                        "logits": {"dtype": dtype, "shape": [1, 10], "data_offsets": [0, size]},
                    }
                ).encode(),
            )
        ),
    ],
)
def test_a_damaged_file_is_refused(content, tmp_path) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"f.safetensors (has no answers|is damaged)"):
        teacher_file.read(path)


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_logits_that_are_infinite_are_refused_and_those_of_an_unknown_image_are_not(
    infinite, tmp_path
) -> None:
    rows = np.array([[np.nan, np.nan], [0.5, 1.5]], np.float16)
    path, given = tmp_path / "f.safetensors", {"data": "0", "teacher": "t"}
    teacher_file.write(path, teacher_file.Answers(rows=rows, class_names=("a", "b"), **given))
    assert_same_bits(teacher_file.read(path).rows, rows)
    rows[1, 0] = infinite
    teacher_file.write(path, teacher_file.Answers(rows=rows, class_names=("a", "b"), **given))
    with pytest.raises(ValueError, match="f.safetensors is damaged"):
        teacher_file.read(path)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((), "config.objective.teacher_file: there is no file nowhere: make it with vit_jax label"),
        (("--config.objective.teacher=a",), "both teacher and teacher_file: set only one"),
    ],
)
def test_a_file_that_is_not_there_or_not_needed_is_refused(
    extra, message, tmp_path, monkeypatch, capsys
) -> None:
    Life(tmp_path, monkeypatch).refused(*taught_by(pathlib.Path("nowhere"), "hard"), *extra)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_file_of_fewer_images_is_refused(tmp_path) -> None:
    names = ("a", "b")
    content = teacher_file.Answers(
        rows=np.zeros(3, np.int32), class_names=names, data="1", teacher="t"
    )
    path = tmp_path / "f.safetensors"
    teacher_file.write(path, content)
    facts = DataFacts(train_size=4, class_names=names, num_classes=2)
    with pytest.raises(ValueError, match=r"other data \(3 images there, 4 here\)"):
        teacher_file.tables(Distillation(teacher_file=str(path)), facts, Identity("1"))


def test_other_answers_are_refused_when_the_run_goes_on(
    made, tmp_path, monkeypatch, capsys
) -> None:
    path = tmp_path / "f.safetensors"
    shutil.copy(made / "classes.safetensors", path)
    life = Life(tmp_path, monkeypatch)
    assert life.train("run", *taught_by(path, "hard"), stop_after=2) == 128 + 15
    before = teacher_file.read(path)
    other = (before.rows + 1) % 10
    content = teacher_file.Answers(
        rows=other.astype(np.int32), class_names=before.class_names, data=before.data, teacher="t"
    )
    teacher_file.write(path, content)
    capsys.readouterr()
    assert life.train("run", *taught_by(path, "hard")) == 2
    error = capsys.readouterr().err
    assert "config.objective.teacher_file" in error and "changed since the run in" in error


def test_label_writes_no_other_file_and_uses_no_other_field(
    made, recipe, tmp_path, refused
) -> None:
    given = ("label", "--workdir", made / "teacher", "--config", recipe, "-o")
    assert "must end in .safetensors" in refused(*given, tmp_path / "f.npz", folder=tmp_path)
    exists = refused(*given, made / "classes.safetensors", folder=made)
    assert "exists: choose another name, or give --overwrite" in exists
    path = tmp_path / "f.safetensors"
    unused = refused(*given, path, "--config.ema=0.5", folder=tmp_path)
    assert "does not use config.ema" in unused
    assert "no checkpoint at" in refused("label", "--workdir", tmp_path / "x", *given[3:], path)


def test_an_answer_agrees_with_any_of_several_labels(monkeypatch) -> None:
    """Of 4 images with the classes 0 and 1, 1, 2, none; the teacher says 1, 0, 2, 0."""
    several = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.uint8)
    source = ArraySource(
        name="several",
        class_names=("a", "b", "c"),
        images=np.zeros((4, 8, 8), np.uint8),
        labels=several,
    )
    logits = np.eye(3, dtype=np.float32)[[1, 0, 2, 0]]
    teacher = types.SimpleNamespace(digest="0")
    monkeypatch.setattr(labelling.opening, "open_train", lambda data, labelled: source)
    monkeypatch.setattr(labelling.frozen, "read_model", lambda *given: teacher)
    monkeypatch.setattr(labelling, "_answers", lambda *given: [(np.arange(4), logits, several)])
    config = default_config()
    config.model.name = "Ti/16"
    answers, summary = labelling.label(resolve(config), "teacher", logits=False)
    assert answers.rows.tolist() == [1, 0, 2, 0]
    assert "agree with 50.00% of the labels" in summary
