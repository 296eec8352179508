"""Images of several classes: read from lists, trained on, mixed by a rule, measured."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from tests import cli, runs
from tests.compare import assert_close
from tests.extending.life import Life
from vit_jax.checkpoints import run_folder
from vit_jax.data.augment import Mixup, ValueRange, check
from vit_jax.data.augment.mix import Mix
from vit_jax.data.changes import changes
from vit_jax.data.crops import Inception
from vit_jax.data.list_data import ListData
from vit_jax.data.pipeline import train_batches
from vit_jax.data.preprocess import TrainTransform
from vit_jax.data.record import DataFacts
from vit_jax.data.relabelled import Relabelled
from vit_jax.models import zoo
from vit_jax.objectives import classification
from vit_jax.objectives.classification import Classification, one_hot_targets

NAMES = ("red", "green", "light blue")
IMAGES = 24
SIGMOID = "--config.objective.cross_entropy=sigmoid"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Images of noise whose channels are bright where the image has the class of the channel."""
    root, rng = tmp_path_factory.mktemp("list"), np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    labels: dict[str, list[str]] = {}
    for number in range(IMAGES):
        own = [name for bit, name in enumerate(NAMES) if number >> bit & 1]
        bright = np.array([200 * (name in own) for name in NAMES])
        pixels = (bright + rng.integers(0, 50, (28, 28, 3))).astype(np.uint8)
        name = f"images/{number}.png"
        PIL.Image.fromarray(pixels).save(root / name)
        labels[name] = own
    (root / "train.json").write_text(json.dumps(labels))
    some = [f"{name} {','.join(str(NAMES.index(o)) for o in own)}" for name, own in labels.items()]
    (root / "val.txt").write_text("\n".join(line for line in some if not line.endswith(" ")))
    (root / "single.txt").write_text("images/1.png red\nimages/2.png 1\n")
    return root


def data_of(folder: pathlib.Path, *more: str) -> tuple[str, ...]:
    return ("--config.data.source=image_list", f"--config.data.path={folder}", *more)


def opened(folder: pathlib.Path, split: str):
    return ListData(path=str(folder)).open(split, train_split="train")


def test_a_list_gives_each_image_its_classes(folder) -> None:
    train, val, single = (opened(folder, split) for split in ("train", "val", "single"))
    assert ListData(path=str(folder)).splits(train_split="train") == ("single", "train", "val")
    assert (len(train), len(val), len(single)) == (IMAGES, IMAGES - 3, 2)
    assert train.multi_label and val.multi_label and not single.multi_label
    for number in range(IMAGES):
        assert train.read(number).label.tolist() == [number >> bit & 1 for bit in range(3)]
    assert [single.read(i).label for i in range(2)] == single.labels.tolist() == [0, 1]
    turned = Relabelled(train, (2, 0, 1))
    assert turned.class_names == ("green", "light blue", "red")
    expected = train.labels[:, [1, 2, 0]]
    np.testing.assert_array_equal(turned.labels, expected)
    np.testing.assert_array_equal(turned.read(5).label, expected[5])


def test_a_batch_has_rows_of_zeros_and_ones(folder) -> None:
    transform = TrainTransform(size=(8, 8), crop=Inception())
    (batch,) = train_batches(opened(folder, "train"), transform, seed=0, batch_size=9, num_steps=1)
    assert batch["label"].dtype == np.uint8
    expected = [[i >> bit & 1 for bit in range(3)] for i in batch["id"].tolist()]
    assert batch["label"].tolist() == expected


def test_other_labels_are_other_data(folder, tmp_path) -> None:
    before = opened(folder, "train").identity()
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "classes.txt").write_text((folder / "classes.txt").read_text())
    labels = json.loads((folder / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps(labels))
    assert opened(tmp_path, "train").identity().digest == before.digest
    labels["images/3.png"] = ["red", "light blue"]
    (tmp_path / "train.json").write_text(json.dumps(labels))
    assert changes(before, opened(tmp_path, "train").identity())


def test_targets_and_metrics_of_several_classes() -> None:
    labels = jnp.asarray([[1, 0, 1], [0, 0, 0], [0, 1, 0]], jnp.uint8)
    np.testing.assert_array_equal(one_hot_targets(labels, num_classes=3), labels)
    smooth = one_hot_targets(labels, num_classes=3, smoothing=0.3)
    # As timm's mixup_target(..., multi_label=True): towards 1/2.
    assert_close(smooth[0], np.array([0.85, 0.15, 0.85]), rtol=1e-6)
    logits = jnp.asarray([[0.0, 1, 2], [3, 0, 0], [3, 2, 1]])
    found = classification.metrics(
        logits, one_hot_targets(labels, num_classes=3), mask=jnp.ones(3, bool), kind="sigmoid"
    )
    assert (found["top1"], found["top5"], found["count"]) == (1, 2, 3)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    assert_close(found["loss"], -np.log(np.where(labels, p, 1 - p)).sum(), rtol=1e-6)


BATCH = {
    "image": jnp.arange(4.0)[:, None, None, None] * jnp.ones((4, 8, 8, 3)),
    "targets": jnp.asarray([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]], jnp.float32),
    "sample_index": jnp.stack([jnp.zeros(4, jnp.uint32), jnp.arange(4, dtype=jnp.uint32)], -1),
}


def test_cutmix_joins_classes_by_the_rule_that_is_given() -> None:
    key, targets = jax.random.key(0), BATCH["targets"]
    fields = {"mixup_alpha": 0.0, "cutmix_sides": (0.3, 0.7), "mode": "sample"}
    share = Mix(several_labels="share", **fields)(BATCH, key=key)
    union = Mix(several_labels="union", **fields)(BATCH, key=key)
    np.testing.assert_array_equal(share["image"], union["image"])
    kept = (share["image"][..., 0] == BATCH["image"][..., 0]).mean((1, 2))[:, None]
    assert_close(share["targets"], kept * targets + (1 - kept) * targets[::-1], atol=1e-6)
    np.testing.assert_array_equal(union["targets"], jnp.maximum(targets, targets[::-1]))


def test_mixup_weights_all_classes_whatever_the_rule_is() -> None:
    key, targets = jax.random.key(0), BATCH["targets"]
    found = [
        Mix(cutmix_alpha=0.0, several_labels=rule)(BATCH, key=key)
        for rule in ("unset", "share", "union")
    ]
    share = (found[0]["image"][0, 0, 0, 0] - 3) / -3  # of images 0 and 3
    assert_close(found[0]["targets"][0], share * targets[0] + (1 - share) * targets[3], atol=1e-6)
    for other in found[1:]:
        np.testing.assert_array_equal(other["targets"], found[0]["targets"])


def test_cutmix_without_a_rule_is_refused_where_images_have_several_classes() -> None:
    gives = frozenset({"targets"})

    def checked(*kinds, multi_label: bool) -> None:
        check((ValueRange(), *kinds), gives=gives, multi_label=multi_label)

    checked(Mix(), multi_label=False)
    checked(Mix(several_labels="union"), Mixup(), multi_label=True)
    checked(Mix(cutmix_alpha=0.0), multi_label=True)
    with pytest.raises(ValueError, match="several_labels to share or union, or leave CutMix out"):
        checked(Mix(), multi_label=True)


def test_a_run_learns_several_classes_and_goes_on_with_the_same_bits(
    folder, tmp_path, monkeypatch
) -> None:
    mix = (
        "--config.augment=('flip','value_range','mix')",
        "--config.augment.mix.several_labels=union",
    )
    data = data_of(folder, "--config.batch_size=8", SIGMOID)
    whole = Life(tmp_path, monkeypatch).lives(*data, *mix)
    last = [line for line in runs.lines(whole) if "eval_top1" in line][-1]
    assert 0 <= last["eval_top1"] <= 1 and np.isfinite(last["eval_loss"])
    assert run_folder.read_card(whole).cross_entropy == "sigmoid"
    assert cli.run("figures", "--workdir", whole, "--only", "predictions") == 0
    assert (whole / "pictures" / "predictions.png").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "cross_entropy is softmax, but images have several classes: set it to sigmoid"),
        (
            (SIGMOID, "--config.augment=('flip','value_range','mix')"),
            "mix has CutMix, and images have several classes",
        ),
        ((SIGMOID, "--config.data.sampling=balanced"), "sampling is balanced, but images of"),
        (
            (SIGMOID, "--config.evaluators.near.kind=knn"),
            "kNN needs one class of each image",
        ),
        ((SIGMOID, "--config.data.train_split=other"), "has no list of a split 'other'"),
        ((SIGMOID, "--config.data.path="), "config.data.path is empty: name a folder of images"),
    ],
)
def test_what_needs_one_class_of_each_image_is_refused(
    folder, more, message, tmp_path, monkeypatch, capsys
) -> None:
    given = data_of(folder, "--config.batch_size=8", *more)
    Life(tmp_path, monkeypatch).refused(*given)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


class Logits:
    options = zoo.options("Ti/16", num_classes=3)

    def __call__(self, images: jax.Array) -> jax.Array:
        return images[:, 0, 0]


def test_softmax_is_measured_with_equally_probable_classes() -> None:
    """Training images may have one class each while the held-out ones have several."""
    logits = jnp.asarray([[0.0, 1, 2], [3, 0, 0], [3, 2, 1]])
    labels = jnp.asarray([[0, 1, 1], [0, 0, 0], [0, 1, 0]], jnp.uint8)
    batch = {"image": logits[:, None, None], "label": labels, "mask": jnp.ones(3, bool)}
    found = Classification().measure(Logits(), batch, frozen={})
    log_p = jax.nn.log_softmax(logits)
    assert (found["top1"], found["top5"]) == (1, 2)
    assert_close(found["loss"], -(log_p[0, 1] + log_p[0, 2]) / 2 - log_p[2, 1], rtol=1e-6)
    with pytest.raises(ValueError, match="softmax, but images have several classes"):
        facts = DataFacts(train_size=9, num_classes=3, multi_label=True)
        Classification().model(Logits.options, facts)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "train.json",
            '{"images/1.png": [0, 9]}',
            "labels outside the 3 classes: 'images/1.png: 9'",
        ),
        ("train.json", '{"images/1.png": [[0]]}', "has the label [0], which is not an integer"),
        ("train.json", '{"images/none.png": [0]}', "1 labelled files are not in"),
        ("train.txt", "images/1.png 0,rad", "has the label 'rad', which is not an integer"),
        ("train.txt", "images/1.png 0,", "has the label ''"),
        ("classes.txt", "a\na\n", "must name each class once, each on a line"),
        ("classes.txt", "\ufeffa\na\n", "must name each class once, each on a line"),
        ("val.json", '{"images/1.png": 0}', "has two lists of the split val: remove one"),
    ],
)
def test_a_list_with_a_mistake_is_refused(folder, file, text, message, tmp_path) -> None:
    (tmp_path / "images").symlink_to(folder / "images")
    for name in ("classes.txt", "val.txt"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "train.json").write_text('{"images/1.png": [0, "red"]}')
    if file == "train.txt":
        (tmp_path / "train.json").unlink()
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError) as caught:
        opened(tmp_path, "train")
    assert message in str(caught.value), caught.value
