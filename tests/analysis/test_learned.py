"""What is read off a model's first layer."""

import json

import jax
import numpy as np
import pytest

import vit_jax
from tests.compare import assert_close
from vit_jax.analysis import figures, learned


@pytest.fixture(scope="module")
def model():
    return vit_jax.create(
        "Ti/8", image_size=(16, 24), width=16, depth=1, mlp_dim=16, num_heads=2, num_classes=3
    )


def test_filters_are_principal_components_scaled_to_pixels(model):
    images = learned.filters(model, count=5)
    assert images.shape == (5, 8, 8, 3)
    assert_close(images.min(axis=(1, 2, 3)), 0, atol=1e-12)
    assert_close(images.max(axis=(1, 2, 3)), 1, atol=1e-12)


def test_similarity_of_positions_leaves_out_the_class_token(model):
    similarity = learned.position_similarity(model)
    assert similarity.shape == (2, 3, 2, 3)
    patches = np.asarray(model.encoder.position[...])[0, 1:]
    expected = patches[1] @ patches[5] / np.linalg.norm(patches[1]) / np.linalg.norm(patches[5])
    assert_close(similarity[0, 1, 1, 2], expected, rtol=1e-5)
    assert_close(np.diag(similarity.reshape(6, 6)), 1, rtol=1e-6)


def test_a_model_without_positions_has_no_similarity():
    plain = vit_jax.create("Ti/8", image_size=(16, 16), depth=1, position="none", num_classes=0)
    with pytest.raises(ValueError, match="position 'none'"):
        learned.position_similarity(plain)


def test_pictures_are_drawn(model, tmp_path):
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_top1": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    images = np.asarray(jax.random.randint(jax.random.key(0), (9, 16, 24, 3), 0, 256), np.uint8)
    drawn = {
        "curves": figures.curves(tmp_path),
        "filters": figures.filters(model),
        "positions": figures.position_similarity(model),
        "predictions": figures.predictions(images, [("a", 0.5)] * 9, ["a", "b"] * 5),
    }
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 2000
    titles = [axes.get_title() for axes in drawn["predictions"].axes]
    assert titles[:2] == ["a 50%", "a 50%\n(is b)"]
