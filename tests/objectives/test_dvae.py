"""The discrete VAE: its losses are those of the paper, and its runs live."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vit_jax
from tests import cli, runs
from tests.compare import assert_close
from tests.extending.life import Life
from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.data.record import DataFacts
from vit_jax.evaluators import codebook
from vit_jax.models import zoo
from vit_jax.objectives import dvae
from vit_jax.objectives.dvae import DiscreteVAE

FACTS = DataFacts(train_size=100)
SIZES: dict[str, Any] = {
    **{"hidden": 4, "groups": 2, "blocks": 1, "vocabulary": 6, "code_width": 4},
    "image_size": (8, 12),
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
RECIPE = """
from vit_jax.config import default_config


def get_config():
    config = default_config()
    config.image_size = (16, 16)
    config.batch_size = 16
    config.log_every.steps = 1
    config.evaluate_every.percent = 0.0
    config.checkpoint.every.percent = 0.0
    config.eval_batch_size = 512
    config.model.name = "DALL-E-dVAE"
    config.model.hidden = 4
    config.model.groups = 3
    config.model.blocks = 1
    config.model.vocabulary = 16
    config.model.code_width = 8
    config.objective.name = "dvae"
    config.objective.temperature_examples = 64
    config.evaluators.codes = {"kind": "codebook"}
    config.data.crop = "center"
    config.data.crop_pct = 1.0
    config.data.threads = 2
    return config
"""


@pytest.fixture(scope="module")
def model() -> Any:
    options = zoo.options("DALL-E-dVAE", **SIZES)
    return load.assemble(options, tiny.params(options))


def losses(objective: DiscreteVAE, model: Any, batch: dict[str, jax.Array]) -> Any:
    """The loss of a prepared batch."""

    @nnx.jit
    def loss(model: Any, batch: dict[str, jax.Array]) -> Any:
        return objective.loss(model, batch, key=jax.random.key(0), frozen={})

    return loss(model, batch)


def images(count: int = 2) -> jax.Array:
    values = np.random.default_rng(0).random((count, *SIZES["image_size"], 3), np.float32)
    return jnp.asarray((values - np.float32(MEAN)) / np.float32(STD))


def prepared(objective: DiscreteVAE, *rows: int) -> dict[str, jax.Array]:
    index = jnp.asarray([(0, row) for row in rows], jnp.uint32)
    batch = {"image": images(len(rows)), "sample_index": index}
    return objective.prepare(batch, options=None, key=jax.random.key(1))


def test_the_likelihood_is_a_density_of_the_mapped_pixels() -> None:
    mapped = np.linspace(1e-5, 1 - 1e-5, 200_001)
    target = jnp.asarray((mapped - 0.1) / 0.8, jnp.float32)[None, None, :, None]
    for location, scale in ((0.0, 1.0), (1.5, 0.3), (-2.0, 0.7)):
        outputs = jnp.broadcast_to(jnp.float32([location, np.log(scale)]), (*target.shape[:3], 2))
        density = np.exp(-np.asarray(dvae.logit_laplace(outputs, target), np.float64)).ravel()
        assert np.trapezoid(density, mapped) == pytest.approx(1, abs=2e-3)
        middle = mapped[np.searchsorted(np.cumsum(density) / density.sum(), 0.5)]
        assert np.log(middle / (1 - middle)) == pytest.approx(location, abs=1e-2), "its median"


def test_the_divergence_is_that_from_a_uniform_distribution() -> None:
    logits = jnp.log(jnp.float32([[[[0.25] * 4, [0.7, 0.1, 0.1, 0.1], [1, 1e-9, 1e-9, 1e-9]]]]))
    found = dvae.divergence_from_uniform(logits)[0, 0]
    share = np.float64([0.7, 0.1, 0.1, 0.1])
    assert_close(found, [0, (share * np.log(4 * share)).sum(), np.log(4)], atol=1e-5)


def test_drawn_tokens_have_the_probabilities_of_the_encoder() -> None:
    logits = jnp.log(jnp.float32([0.6, 0.3, 0.1]))
    many = jnp.broadcast_to(logits, (4000, 1, 1, 3))
    keys = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(0), 4000))
    drawn = dvae.relaxed_tokens(many, keys, temperature=jnp.full(4000, 1e-3))
    assert_close(drawn.mean(axis=0)[0, 0], jnp.exp(logits), atol=0.02)
    soft = dvae.relaxed_tokens(many, keys, temperature=jnp.full(4000, 1.0))
    assert float(soft.max(axis=-1).mean()) < 0.9 < float(drawn.max(axis=-1).mean())


@pytest.mark.parametrize("reconstruction", ["l2", "logit_laplace"])
def test_the_loss_is_the_error_and_the_weighted_divergence_per_pixel(model, reconstruction) -> None:
    objective = DiscreteVAE(reconstruction=reconstruction, kl_examples=0).bound(mean=MEAN, std=STD)
    batch = prepared(objective, 3, 4)
    values, weights, extras = losses(objective, model, batch)
    tokens = SIZES["image_size"][0] * SIZES["image_size"][1] / model.options.stride**2
    per_pixel = extras["divergence"] * tokens / (8 * 12 * 3)
    assert_close(values, extras["reconstruction"] + 6.6 * per_pixel, rtol=1e-5)
    np.testing.assert_array_equal(weights, [1, 1])
    logits = model(batch["image"])
    drawn = dvae.relaxed_tokens(logits, batch["token_key"], temperature=extras["temperature"])
    location, log_scale = np.split(np.asarray(model.decode(drawn), np.float64), 2, axis=-1)
    pixels = np.asarray(batch["image"]) * np.float32(STD) + np.float32(MEAN)
    if reconstruction == "l2":
        expected = ((1 / (1 + np.exp(-location)) - 0.1) / 0.8).clip(0, 1) - pixels
        expected = expected**2
    else:
        x = 0.8 * pixels + 0.1
        distance = np.abs(np.log(x / (1 - x)) - location) / np.exp(log_scale)
        expected = np.log(2 * np.exp(log_scale) * x * (1 - x)) + distance
    assert_close(extras["reconstruction"], expected.mean(axis=(1, 2, 3)), rtol=1e-4)


def test_schedules_follow_the_number_of_images_before_a_sample(model) -> None:
    objective = DiscreteVAE(
        temperature=0.25, temperature_examples=100, kl_examples=100, kl_weight=2.0
    ).bound(mean=MEAN, std=STD)
    found = losses(objective, model, prepared(objective, 0, 25, 50, 100, 1000))
    done = (1 - np.cos(np.pi * np.array([0, 0.25, 0.5, 1, 1]))) / 2
    assert_close(found.extras["temperature"], 1 - 0.75 * done, rtol=1e-6)
    rows, columns = model(images(1)).shape[1:3]
    per_pixel = np.asarray(found.extras["divergence"]) * (rows * columns) / (8 * 12 * 3)
    weights = np.asarray(found.values - found.extras["reconstruction"]) / per_pixel
    assert_close(weights, 2 * done, atol=1e-3)
    later = prepared(objective, 0) | {"sample_index": jnp.asarray([(1, 0)], jnp.uint32)}
    found = losses(objective, model, later)
    assert_close(found.extras["temperature"], [0.25])


def test_drawn_tokens_belong_to_the_sample(model) -> None:
    """So they do not depend on the mesh or the number of micro-batches."""
    objective = DiscreteVAE(reconstruction="l2").bound(mean=MEAN, std=STD)
    batch = prepared(objective, 5, 6, 7)
    alone = {name: array[1:2] for name, array in batch.items()}
    whole, part = (losses(objective, model, rows).values for rows in (batch, alone))
    assert_close(part[0], whole[1], rtol=1e-5)


def test_perplexity_and_use_of_the_codebook() -> None:
    assert codebook.perplexity(np.array([3, 3, 0, 3])) == pytest.approx(3)
    assert codebook.perplexity(np.array([9, 0, 0, 0])) == pytest.approx(1)
    assert codebook.used(np.array([9, 1, 0, 0])) == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, r"temperature is 0.0: it must be in \(0, 1\]"),
        ({"temperature": 1.5}, "temperature is 1.5"),
        ({"kl_weight": -1.0}, "kl_weight is -1.0: it must not be negative"),
        ({"kl_weight": float("nan")}, "kl_weight is nan"),
        ({"temperature_examples": -1}, "temperature_examples is -1"),
    ],
)
def test_values_out_of_range_are_refused(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        DiscreteVAE(**fields)


def test_other_models_and_encoders_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="objective is dvae, which cannot train a ViT"):
        DiscreteVAE().model(zoo.options("B/16"), FACTS)
    with pytest.raises(ValueError, match="has no decoder: set --config.model.reconstructs=true"):
        DiscreteVAE().model(zoo.options("DALL-E-dVAE", reconstructs=False), FACTS)


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dvae")
    with pytest.MonkeyPatch.context() as patch:
        life = Life(folder, patch)
        (folder / "recipe.py").write_text(RECIPE)
        return life.lives()


def test_it_trains_and_goes_on_with_the_same_bits(lived) -> None:
    lines = runs.lines(lived)
    first, last = lines[0], lines[-1]
    assert {"reconstruction", "divergence", "temperature"} <= set(first)
    assert first["temperature"] > 0.9 and last["eval_error"] < 0.3
    assert 1 <= last["eval_codes/perplexity"] <= 16 and 0 < last["eval_codes/used"] <= 1
    assert last["eval_count"] == 5000


def test_its_measures_are_those_of_all_held_out_images(lived, printed) -> None:
    """However they are split into batches."""
    last = runs.lines(lived)[-1]
    said = printed("evaluate", "--json", "--workdir", lived, "--config.eval_batch_size=700")
    for name in ("error", "codes/perplexity", "codes/used"):
        assert json.loads(said)[name] == pytest.approx(last[f"eval_{name}"], rel=1e-5)


def test_its_pictures_are_reconstructions_and_the_use_of_the_codebook(lived, printed) -> None:
    said = printed("figures", "--workdir", lived)
    names = {line.rpartition("/")[2] for line in said.split()}
    assert names == {"curves.png", "reconstructions.png", "codebook.png"}


def test_other_commands_say_that_it_has_no_classes(lived, tmp_path, refused) -> None:
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    assert "no head and no classes" in refused("predict", "--workdir", lived, tmp_path / "a.png")


def test_it_is_not_trained_to_classify(lived, tmp_path, capsys) -> None:
    code = cli.train(lived.parent / "recipe.py", tmp_path / "run", "--config.objective.name=beit")
    assert code == 2 and "which cannot train a discrete VAE" in capsys.readouterr().err
    assert vit_jax.load(lived).options.vocabulary == 16
