"""Runs of BEiT: with a frozen tokenizer of their own, resumed with the same one, fine-tuned."""

import shutil

import numpy as np
import pytest

import vit_jax
from tests import cli, runs
from tests.extending.life import Life
from tests.models import tiny
from vit_jax.checkpoints import load, run_folder
from vit_jax.models import zoo
from vit_jax.training import frozen

BEIT = (
    *("--config.objective.name=beit", "--config.model.name=BEiT-pretrain-Ti/7", "--config.ema=0"),
    *("--config.model.mim_classes=12", "--config.objective.hidden=6"),
    *("--config.objective.smallest_block=2", "--config.optimizer.learning_rate=0.05"),
)
SIZES = {"hidden": 4, "groups": 3, "blocks": 1, "vocabulary": 12, "code_width": 4}


def save_tokenizer(path, *, seed: int = 0, **changes) -> None:
    """A discrete VAE with random parameters, of images of 32 pixels."""
    options = zoo.options("DALL-E-dVAE", **SIZES | {"image_size": (32, 32)} | changes)
    model = load.assemble(options, tiny.params(options, seed=seed))
    expects = zoo.preprocessing("DALL-E-dVAE", image_size=options.image_size)
    model.preprocessing = expects.for_channels(options.channels)
    vit_jax.save(model, path)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    save_tokenizer(folder / "one")
    save_tokenizer(folder / "other", seed=1)
    save_tokenizer(folder / "larger", vocabulary=16)
    save_tokenizer(folder / "grey", channels=1)
    vit_jax.save(tiny.model(image_size=(16, 16)), folder / "classifier")
    return folder


def of(tokenizer) -> tuple[str, ...]:
    return (*BEIT, f"--config.objective.tokenizer={tokenizer}")


def test_it_pretrains_goes_on_with_the_same_bits_and_is_fine_tuned(
    tokenizers, tmp_path, monkeypatch, capsys
) -> None:
    life = Life(tmp_path, monkeypatch)
    pretrained = life.lives(*of(tokenizers / "one"))
    errors = capsys.readouterr().err
    assert "config.objective.tokenizer takes images of 16x16: those of 28x28 are resized" in errors
    lines = runs.lines(pretrained)
    assert {"loss", "accuracy"} <= set(lines[0])
    last = lines[-1]
    assert 0 < last["eval_accuracy"] <= 1 and 0 < last["eval_loss"] < np.log(12)
    assert last["eval_count"] == 5000
    assert cli.run("figures", "--workdir", pretrained, "--only", "masked") == 0
    assert (pretrained / "pictures" / "masked.png").stat().st_size > 10_000
    record = run_folder.read_json(pretrained, frozen.NAME)
    assert record["tokenizer"]["path"] == str(tokenizers / "one")
    assert not [path for path in runs.arrays(pretrained) if "decoder" in path]
    overrides = ("--config.model.name=BEiT-Ti/7", f"--config.init_from={pretrained}")
    assert life.train("tuned", *overrides, "--config.ema=0") == 0
    options = vit_jax.load(tmp_path / "tuned").options
    assert (options.num_classes, options.relative_bias, options.pool) == (10, "per_block", "gap")


def test_another_tokenizer_is_refused_when_the_run_goes_on(
    tokenizers, tmp_path, monkeypatch, capsys
) -> None:
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(tokenizers / "one", tokenizer)
    life = Life(tmp_path, monkeypatch)
    assert life.train("run", *of(tokenizer), stop_after=2) == 128 + 15
    before = runs.listing(tmp_path / "run")
    shutil.rmtree(tokenizer)
    shutil.copytree(tokenizers / "other", tokenizer)
    capsys.readouterr()
    assert life.train("run", *of(tokenizer)) == 2
    error = capsys.readouterr().err
    assert "config.objective.tokenizer" in error and "changed since the run in" in error
    assert error.count("\n") == 1 and runs.listing(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("tokenizer", "overrides", "message"),
    [
        ("", (), "config.objective.tokenizer is empty: name a run or a released file"),
        ("nowhere", (), "config.objective.tokenizer: no checkpoint at"),
        ("classifier", (), "is a ViT, which has no visual tokens: name a discrete VAE"),
        ("larger", (), "has 16 visual tokens, but the model predicts one of 12: set"),
        ("grey", (), "config.objective.tokenizer takes images of 1 channels, and the model that"),
        ("one", ("--config.objective.hidden=16",), "hidden is 16, but the image has only 4 x 4"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(
    tokenizers, tokenizer, overrides, message, tmp_path, monkeypatch, capsys
) -> None:
    path = tokenizers / tokenizer if tokenizer else ""
    Life(tmp_path, monkeypatch).refused(*of(path), *overrides)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_resnet_is_refused(tmp_path, monkeypatch, capsys) -> None:
    life = Life(tmp_path, monkeypatch)
    life.refused("--config.objective.name=beit", "--config.model.name=ResNet-18")
    error = capsys.readouterr().err
    assert "config.objective is beit, which cannot train a ResNet" in error
    assert error.count("\n") == 1
