"""The answers for each image: every image of the split once, in its order, on 8 devices."""

import csv
import dataclasses

import jax
import numpy as np
import pytest

from tests.models import tiny
from vit_jax.commands import answer_files
from vit_jax.data.arrays import ArraySource
from vit_jax.data.record import Record
from vit_jax.evaluators.answers import Recorder
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import evaluation

NAMES = tuple("abcdefg")
RNG = np.random.default_rng(5)


class Files(ArraySource):
    """Image 2 has no label, and image 4 cannot be decoded."""

    def read(self, index: int) -> Record:
        record = super().read(index)
        if index == 4:
            return dataclasses.replace(record, data=b"no image")
        return dataclasses.replace(record, label=-1) if index == 2 else record

    def path(self, index: int) -> str:
        return f"folder/{index}.png"


SOURCE = Files(
    name="noise",
    class_names=NAMES,
    images=RNG.integers(0, 256, (21, 16, 24, 3), dtype=np.uint8),
    labels=RNG.integers(0, 7, 21).astype(np.int32),
)


@pytest.fixture(scope="module")
def measured():
    model = tiny.model(num_classes=7)
    model.preprocessing = Preprocessing(image_size=(16, 24), crop_pct=1.0)
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "MAX_BAD", 0.1)
        metrics = evaluation.evaluate_model(model, SOURCE, batch_size=8, recorder=recorder)
    return model, metrics, recorder.result()


def test_they_are_the_largest_probabilities_of_the_model(measured) -> None:
    model, metrics, found = measured
    logits = np.asarray(jax.jit(lambda x: model(x))(SOURCE.images.astype(np.float32) / 127.5 - 1))
    every = np.asarray(jax.nn.softmax(logits))
    kept = np.setdiff1d(np.arange(21), [2, 4])
    assert found.counted.tolist() == [i in kept for i in range(21)]
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found.classes[kept], order[kept])
    expected = np.take_along_axis(every, order, axis=1)[kept]
    np.testing.assert_allclose(found.probabilities[kept], expected, rtol=1e-5)
    assert (metrics["count"], metrics["unlabelled"], metrics["broken"]) == (19, 1, 1)


def test_rows_say_which_images_are_broken_or_unlabelled(measured) -> None:
    _, metrics, found = measured
    columns = answer_files.prediction_columns(found, NAMES)
    assert columns["image"] == [f"folder/{i}.png" for i in range(21)]
    others = {2: "unlabelled", 4: "broken"}
    assert columns["status"] == [others.get(i, "ok") for i in range(21)]
    for name in ("label", "predicted", "probability", "predicted_5"):
        assert [i for i, value in enumerate(columns[name]) if value is None] == [2, 4]
    of_class = answer_files.per_class(found, NAMES)
    cells = np.zeros((7, 7), int)
    for label, (predicted, *_), counted in zip(
        found.labels, found.classes, found.counted, strict=True
    ):
        cells[label, predicted] += counted
    np.testing.assert_array_equal(found.confusion(7), cells)
    assert (cells != cells.T).any(), "or the test would prove little"
    hits = sum(round(row["top1"] * row["images"]) for row in of_class)
    assert hits == round(metrics["top1"] * 19) == np.trace(found.confusion(7))
    table = answer_files.per_class_table(of_class).split("\n")
    assert len({len(line) for line in table}) == 1 and len(table) == len(of_class) + 1


@pytest.mark.parametrize("names", [("cat", "label", "dog"), ("crane", "dog", "crane")])
def test_a_confusion_matrix_has_a_column_for_each_class_whatever_its_name(names, tmp_path) -> None:
    answer_files.write_confusion(tmp_path / "m.csv", np.arange(9).reshape(3, 3), names)
    with (tmp_path / "m.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["label", *names]
    assert rows == [[name, *map(str, range(3 * i, 3 * i + 3))] for i, name in enumerate(names)]
