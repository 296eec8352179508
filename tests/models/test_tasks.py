"""One encoder, three task models: options choose one, and pretraining ends as a classifier."""

import pytest

from tests.models import tiny
from vit_jax.checkpoints import surgery
from vit_jax.models import zoo
from vit_jax.models.classifier import Classifier, ViTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.masked_autoencoder import MaskedAutoencoder, MaskedAutoencoderOptions
from vit_jax.models.masked_image_model import MaskedImageModel, MaskedImageModelOptions

DECODER = DecoderOptions(width=16, depth=1, mlp_dim=24, num_heads=2)
MAE = {"num_classes": 0, "decoder": DECODER}
BEIT = {"num_classes": 0, "mim_classes": 7, "position": "none", "relative_bias": "shared"}


@pytest.mark.parametrize(
    ("parts", "options", "model"),
    [
        ({}, ViTOptions, Classifier),
        (MAE, MaskedAutoencoderOptions, MaskedAutoencoder),
        (BEIT, MaskedImageModelOptions, MaskedImageModel),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_fields_that_are_set_choose_the_task_model(parts, options, model) -> None:
    found = tiny.options(**parts)
    assert type(found) is options
    assert zoo.family(found).module is model
    names = {path.split("/")[0] for path in surgery.shapes(found)}
    assert "encoder" in names and names - {"encoder"} <= {"head", "decoder", "mim_head"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (MAE | {"num_classes": 3}, "a MaskedAutoencoder with num_classes=3 is not supported"),
        (MAE | {"pool": "map"}, "a MaskedAutoencoder with pool='map'"),
        (MAE | {"mim_classes": 3}, "a MaskedAutoencoder with mim_classes=3"),
        (BEIT | {"representation_size": 8}, "a MaskedImageModel with representation_size=8"),
        ({"mim_norm": True}, "a ViT with mim_norm=True"),
    ],
)
def test_parts_of_two_tasks_are_refused(parts, message) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.options(**parts)


@pytest.mark.parametrize("name", ["MAE-pretrain-Ti/16", "BEiT-pretrain-Ti/16"])
def test_a_pretraining_model_has_no_classes(name) -> None:
    """A run that classifies would train a model with a decoder that is never used."""
    assert zoo.options(name).num_classes == 0
    assert zoo.options(name, num_classes=0) == zoo.options(name)
    with pytest.raises(ValueError, match="has no classes, but num_classes is 10: choose a"):
        zoo.options(name, num_classes=10)


@pytest.mark.parametrize(
    ("parts", "changes"),
    [
        (MAE, {"decoder": None}),
        (MAE, {"num_classes": 3, "decoder": None, "fixed_position": False, "pool": "gap"}),
        (BEIT, {"mim_classes": 0, "relative_bias": "per_block"}),
        (BEIT, {"num_classes": 3}),
        ({}, {"decoder": None, "mim_classes": 0, "mask_token": False}),
    ],
)
def test_a_pretraining_checkpoint_becomes_a_classifier_if_requested(parts, changes) -> None:
    options = tiny.options(**parts).adapted(**changes)
    assert type(options) is ViTOptions
    assert not options.fixed_position and not options.mask_token
    assert options.num_classes == changes.get("num_classes", parts.get("num_classes", 5))
    assert options.width == 32 and options.decoder is None


def test_other_changes_keep_the_task() -> None:
    larger = tiny.options(**MAE).adapted(image_size=(32, 48))
    assert type(larger) is MaskedAutoencoderOptions and larger.decoder == DECODER
    with pytest.raises(ValueError, match="unknown model option 'pol'"):
        larger.adapted(pol="gap")


@pytest.mark.parametrize("field", ["width", "depth", "mlp_dim", "num_heads"])
def test_a_decoder_without_size_is_refused(field) -> None:
    """Orbax cannot save arrays without elements: the run would fail after its first steps."""
    with pytest.raises(ValueError, match=f"decoder {field} is 0: it must be at least 1"):
        DecoderOptions(**{field: 0})
