"""Where a run starts: a released file of any kind becomes a classifier, and the report says how."""

import pathlib

import jax
import pytest

import vit_jax
from tests.models import tiny
from tests.parts import model_config
from vit_jax.checkpoints import load
from vit_jax.commands import configs
from vit_jax.config import Config, DataConfig, Duration, ModelConfig
from vit_jax.data.record import DataFacts
from vit_jax.evaluators import HeldOut
from vit_jax.evaluators.knn import Knn
from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import setup

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
FACTS = DataFacts(train_size=100, num_classes=3)
# Of the released width, so that the file needs no hint.
DECODER = DecoderOptions(width=512, depth=1, mlp_dim=32)


def start(path: pathlib.Path, **model: object) -> setup.Start:
    config = Config(
        init_from=str(path),
        image_size=(24, 16),
        model=model_config(**({"num_heads": 2} | model)),
    )
    return setup.fresh_start(config, FACTS)


@pytest.mark.parametrize(
    ("layout", "kind", "gone"),
    [
        ("mae", {"num_classes": 0, "fixed_position": True, "decoder": DECODER}, "decoder"),
        (
            "beit",
            {
                **{"num_classes": 0, "position": "none", "class_token": True, "key_bias": False},
                **{"relative_bias": "shared", "mask_token": True, "mim_classes": 11},
            },
            "mim_head",
        ),
    ],
)
def test_a_pretrained_autoencoder_becomes_a_classifier(layout, kind, gone, tmp_path) -> None:
    """What only pretraining uses would take memory and moments of the optimizer."""
    vit_jax.save(
        tiny.model(activation="gelu_erf", image_size=(16, 16), num_heads=2, **kind),
        tmp_path / "a.pth",
        layout=layout,
    )
    begin = start(tmp_path / "a.pth")
    assert begin.options == zoo.classifier(begin.options)
    assert begin.options.num_classes == 3 and begin.options.image_size == (24, 16)
    assert begin.params is not None
    assert not any(path.startswith((gone, "encoder/mask")) for path in begin.params)
    dropped = next(line for line in begin.report.splitlines() if line.startswith("dropped"))
    assert gone in dropped
    assert "initialised: head/bias, head/kernel" in begin.report


def test_the_shared_bias_of_pretraining_becomes_that_of_every_block(tmp_path) -> None:
    """As in BEiT's fine-tuning, whose model a name of the zoo asks for."""
    pretrained = zoo.options("BEiT-pretrain-Ti/8", image_size=(16, 16), mim_classes=5)
    vit_jax.save(
        load.assemble(pretrained, tiny.params(pretrained)), tmp_path / "a.pth", layout="beit"
    )
    begin = start(tmp_path / "a.pth", name="BEiT-Ti/8", num_heads=3)
    assert begin.options.relative_bias == "per_block" and begin.options.pool == "gap"
    assert begin.params is not None
    assert begin.params["encoder/blocks/attention/relative_bias"].shape == (12, 5 * 3 + 3, 3)


def test_a_file_of_another_grid_and_way_of_resizing_is_told_by_the_config(tmp_path) -> None:
    vit_jax.save(tiny.model(activation="gelu_erf", num_heads=2), tmp_path / "a.pth", layout="deit")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="leave the grid of patches open"):
        start(tmp_path / "a.pth")
    model = model_config(num_heads=2)
    source = {"init_from": str(tmp_path / "a.pth"), "image_size": (32, 48), "model": model}
    resized = {}
    for method in ("", "bicubic", "align_corners"):
        config = Config(**source, init_grid=(2, 3), init_resize=method)
        begin = setup.fresh_start(config, FACTS)
        assert begin.params is not None
        resized[method] = begin.params["encoder/position"]
    assert (resized[""] == resized["bicubic"]).all(), "DeiT's own"
    assert begin.resize == load.read(tmp_path / "a.pth", num_heads=2, grid=(2, 3)).resize
    assert abs(resized[""] - resized["align_corners"]).max() > 0.1
    with pytest.raises(ValueError, match="unknown interpolation 'cubic': choose one of"):
        setup.fresh_start(Config(**source, init_grid=(2, 3), init_resize="cubic"), FACTS)


@pytest.mark.parametrize(
    "field",
    [
        {"init_layout": "timm"},
        {"init_grid": (2, 3)},
        {"init_resize": "bicubic"},
        {"init_head": "by_number"},
        {"init_adapt_channels": True},
    ],
)
def test_a_field_about_the_file_to_start_from_needs_one(field) -> None:
    config = Config(model=ModelConfig(name="DeiT-Ti/16"), image_size=(32, 32), **field)
    with pytest.raises(ValueError, match=f"config.{next(iter(field))} is .*: set config.init_from"):
        setup.fresh_start(config, FACTS)


def test_a_new_model_expects_the_images_of_its_family() -> None:
    config = Config(model=ModelConfig(name="DeiT-Ti/16"), image_size=(32, 32))
    begin = setup.fresh_start(config, FACTS)
    assert setup.with_value_range(config, begin.preprocessing).data.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("deit.py:S/16", "bicubic"),
        ("deit3.py:B/16", "bicubic"),
        ("mae.py:B/16", "bicubic"),
        ("augreg.py:B/16-i1k", "align_corners"),
    ],
)
def test_the_card_of_a_new_run_says_how_its_family_resizes(name, position) -> None:
    """A run that starts from it follows its card."""
    config = configs.from_file(str(CONFIGS / name), [])
    start = setup.zoo_start(config, FACTS)
    card = setup.make_card(setup.with_value_range(config, start.preprocessing), start, ())
    assert card.resize.position == position


def test_mean_and_deviation_of_the_config_win_over_those_of_the_model() -> None:
    """Each by itself."""
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    theirs = Preprocessing(image_size=(32, 32), mean=(0.7, 0.7, 0.7), std=(0.8, 0.8, 0.8))
    for fields, expected in (
        ({"mean": mean, "std": std}, (mean, std)),
        ({"mean": mean}, (mean, theirs.std)),
        ({"std": std}, (theirs.mean, std)),
    ):
        data = setup.with_value_range(Config(data=DataConfig(**fields)), theirs).data
        assert (data.mean, data.std) == expected


@pytest.mark.parametrize(
    ("patch", "image", "expected"),
    [((8, 4), (16, 24), ((8, 4), (16, 24))), ((8,), (24,), ((8, 8), (24, 24)))],
)
def test_sizes_are_height_and_width_and_one_number_is_both(patch, image, expected) -> None:
    config = Config(model=model_config(name="Ti/16", patch_size=patch), image_size=image)
    options = setup.fresh_start(config, FACTS).options
    assert (options.patch_size, options.image_size) == expected


def test_what_a_file_lacks_is_drawn_by_the_seed_of_the_run(tmp_path) -> None:
    """By a key of its own, not the one that draws whole models."""
    vit_jax.save(tiny.model(activation="gelu_erf", num_heads=2), tmp_path / "a.pth", layout="deit")
    drawn = []
    for seed in (0, 0, 1):
        config = Config(
            seed=seed,
            init_from=str(tmp_path / "a.pth"),
            image_size=(16, 24),
            model=model_config(num_heads=2, representation_size=8),
        )
        begin = setup.fresh_start(config, FACTS)
        assert begin.params is not None
        drawn.append(begin.params["pre_logits/kernel"])
    assert (drawn[0] == drawn[1]).all()
    assert drawn[0][0, 0] == pytest.approx(-0.2804798), "as in every earlier version"
    assert (drawn[0] != drawn[2]).all()


def test_the_layout_that_the_config_names_is_the_one_that_reads(tmp_path) -> None:
    vit_jax.save(tiny.model(activation="gelu_erf", num_heads=2), tmp_path / "a.pth", layout="deit")
    config = Config(
        init_from=str(tmp_path / "a.pth"),
        init_layout="hf",
        image_size=(16, 24),
        model=model_config(num_heads=2),
    )
    with pytest.raises(ValueError, match=r"a\.pth: "):
        setup.fresh_start(config, FACTS)


def test_a_run_says_how_long_it_is_and_what_happens_when() -> None:
    near = Knn(k=(20,), every=Duration(epochs=2))
    config = Config(
        batch_size=20,
        total=Duration(epochs=40),
        log_every=Duration(steps=500),
        evaluators={"held_out": HeldOut(), "near": near},
        model=model_config(),
    )
    lengths = setup.lengths(config, dataset_size=1000)
    assert setup.described(lengths, config, images=1000) == (
        "2,000 steps (40 epochs); evaluation every 200, evaluation by near every 100,"
        f" checkpoint every {lengths.checkpoint_every:,}, line of metrics every 500"
    )


@pytest.mark.parametrize(("repeats", "told"), [(3, True), (4, False)])
def test_a_run_says_that_the_copies_of_an_image_are_in_two_batches(repeats, told) -> None:
    config = Config(
        batch_size=16,
        total=Duration(steps=10),
        data=DataConfig(repeats=repeats),
        model=model_config(name="Ti/16"),
    )
    lines = setup.messages(
        config,
        zoo.options("Ti/16"),
        parameters=1,
        mesh=make_mesh(config.mesh, devices=jax.devices()[:1]),
        lengths=setup.lengths(config, dataset_size=1000),
        images=1000,
        step=0,
        notes=(),
    )
    said = [line for line in lines if line.startswith("warning: config.data.repeats 3 does not")]
    assert len(said) == told
