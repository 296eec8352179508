"""What an evaluation measures, by the definitions: of any model, value range, loss and labels."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.models import tiny
from tests.objectives.test_calibration import by_definition as calibration_error
from tests.training.one_step import mesh_of
from vit_jax.config import Config, DataConfig
from vit_jax.data.arrays import ArraySource
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import DataFacts, Record
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives.classification import Classification
from vit_jax.training import measures, setup, state
from vit_jax.training.design import design
from vit_jax.training.evaluation import evaluate_model

CLASSES = ("a", "b", "c", "d", "e", "f", "g")
MEAN, STD = (0.3, 0.5, 0.6), (0.1, 0.2, 0.4)
RNG = np.random.default_rng(3)
SOURCE = ArraySource(
    name="noise",
    class_names=CLASSES,
    images=RNG.integers(0, 256, (21, 16, 24, 3), dtype=np.uint8),
    labels=RNG.integers(0, len(CLASSES), 21).astype(np.int32),
)


class Unlabelled(ArraySource):
    """Nobody tells the classes of the first three images."""

    def read(self, index: int) -> Record:
        record = super().read(index)
        return dataclasses.replace(record, label=-1) if index < 3 else record


def by_numpy(model, source: ArraySource = SOURCE, *, loss: str = "softmax") -> dict[str, float]:
    images = (source.images / 255 - np.array(MEAN)) / np.array(STD)
    logits = np.asarray(jax.jit(lambda x: model(x))(images.astype(np.float32)), np.float64)
    chosen = np.arange(len(logits)), source.labels
    every = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence = (every if loss == "softmax" else 1 / (1 + np.exp(-logits))).max(axis=1)
    places = np.argsort(np.argsort(-logits, axis=1), axis=1)[chosen]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[chosen]
    if loss == "sigmoid":  # -log of the label's probability, and of 1 - those of the others
        signs = np.where(np.eye(len(CLASSES))[source.labels], -1, 1)
        losses = np.log1p(np.exp(signs * logits)).sum(axis=1)
    return {
        "top1": (places == 0).mean(),
        "top5": (places < 5).mean(),
        "loss": losses.mean(),
        "ece": calibration_error(confidence, places == 0),
        "count": len(logits),
    }


def a_model(*, seed: int = 0):
    model = tiny.model(seed=seed, num_classes=len(CLASSES))
    model.preprocessing = Preprocessing(image_size=(16, 24), crop_pct=1.0, mean=MEAN, std=STD)
    return model


def test_a_loaded_model_is_measured_with_its_own_value_range() -> None:
    """A batch size that the devices do not divide, and one that leaves a part of the last batch."""
    expected = by_numpy(a_model())
    assert len({expected[name] for name in ("top1", "top5")} & {0.0, 1.0}) == 0
    assert evaluate_model(a_model(), SOURCE, batch_size=9) == pytest.approx(expected, rel=1e-5)


def test_images_without_a_label_are_left_out_and_counted() -> None:
    source = Unlabelled(**vars(SOURCE))
    labelled = dataclasses.replace(SOURCE, images=SOURCE.images[3:], labels=SOURCE.labels[3:])
    found = evaluate_model(a_model(), source, batch_size=8)
    assert found == pytest.approx(by_numpy(a_model(), labelled) | {"unlabelled": 3}, rel=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_run_measures_its_parameters_and_their_average_by_its_own_loss(loss) -> None:
    """With the mean and deviation of its config, whatever crop and kernel training has."""
    config = Config(
        batch_size=8,
        eval_batch_size=5,
        objective=Classification(cross_entropy=loss, label_smoothing=0.3),
        data=DataConfig(crop_pct=1.0, mean=MEAN, std=STD),
    )
    options = tiny.options(num_classes=len(CLASSES))
    mesh = mesh_of("one")
    plan = design(
        config,
        DataFacts(train_size=100, num_classes=len(CLASSES)),
        mesh,
        start=setup.Start(options=options, preprocessing=Preprocessing(image_size=(16, 24))),
    )
    bad = BadImages(size=len(SOURCE), max_bad=0.0)
    evaluations = measures.of_run(plan, train=SOURCE, held_out=SOURCE, bad=bad)
    models = [a_model(seed=seed) for seed in (0, 1)]
    trees = [state.nnx.to_pure_dict(state.nnx.state(model)) for model in models]
    with jax.set_mesh(mesh):
        found = evaluations({"params": trees[0], "ema": trees[1]})
    own, average = (by_numpy(model, loss=loss) for model in models)
    del average["count"]
    expected = own | {f"ema_{name}": value for name, value in average.items()}
    assert found == pytest.approx(expected, rel=1e-5)
