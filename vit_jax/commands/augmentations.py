"""Pictures of the augmentations of a config: images before, and after several random draws."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vit_jax.analysis import figures
from vit_jax.config import Config, DataConfig
from vit_jax.data import augment, opening, pipeline, preprocess
from vit_jax.data.augment.contract import PIXELS, VALUES
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import setup

IMAGES, DRAWS = 4, 7  # rows and columns of a picture
COLOURS = 3  # channels of a model whose recipe does not say


def draw(config: Config) -> dict[str, Figure]:
    """The picture of each augmentation, by the name `augment_NAME`.

    An augmentation that only normalises, or that needs more than images and targets, has no
    picture. Raises ValueError if the augmentations cannot be applied, or if none has a picture.
    """
    channels = config.model.get("channels") or COLOURS
    augment.check(config.augment, gives=config.objective.gives, channels=channels)
    images = _crops(config, channels)
    data = normalised(config, channels).data
    drawn = {}
    for kind in config.augment:
        bound = kind.bound(mean=data.mean, std=data.std)
        name = augment.name_of(kind)
        if isinstance(bound, augment.HostAugmentation):
            after = _on_host(bound, images, seed=config.seed)
        elif bound.takes or bound.needs - {PIXELS, VALUES, "targets"}:
            continue
        else:
            after = on_device(bound, images, data=data, seed=config.seed)
        drawn[f"augment_{name}"] = figures.augmentation(images, after, title=name)
    if not drawn:
        raise ValueError("config.augment has no augmentation that changes images: add one")
    return drawn


def normalised(config: Config, channels: int) -> Config:
    """The config with `data.mean` and `data.std`; those of `init_from` are not read."""
    size, name = setup.image_size(config), config.model.name
    known = zoo.preprocessing(name, image_size=size) if name else Preprocessing(image_size=size)
    return setup.with_value_range(config, known.for_channels(channels))


def _crops(config: Config, channels: int) -> np.ndarray:
    """Training images as uint8 (IMAGES, H, W, C), cut from the centre."""
    source = opening.open_train(config.data, labelled=False)
    size = setup.image_size(config)
    transform = preprocess.eval_transform(config.data, size=size, channels=channels)
    indices = np.linspace(0, len(source) - 1, IMAGES).astype(int).tolist()
    images = []
    for record in map(source.read, indices):
        try:
            images.append(transform(transform.decode(record.data)))
        except ValueError as error:
            raise ValueError(f"{record.path}: {error}") from error
    return np.stack(images)


def _on_host(
    augmentation: augment.HostAugmentation, images: np.ndarray, *, seed: int
) -> np.ndarray:
    """uint8 (DRAWS, IMAGES, H, W, C)."""
    indices = np.arange(DRAWS * len(images))
    numbers = pipeline.augmentation_numbers((augmentation,), indices, seed=seed)
    rows = numbers[0].reshape(DRAWS, len(images), -1)
    changed = [
        [augmentation(image, numbers=row) for image, row in zip(images, draws, strict=True)]
        for draws in rows
    ]
    return np.array(changed)


def on_device(
    augmentation: augment.Augmentation, images: np.ndarray, *, data: DataConfig, seed: int
) -> np.ndarray:
    """uint8 (DRAWS, IMAGES, H, W, C); each draw is of a batch of all images."""
    key = jax.random.fold_in(jax.random.key(seed), augmentation.stream)
    normal = VALUES in augmentation.needs
    centre, scale = 255 * np.array(data.mean), 255 * np.array(data.std)
    pixels = jnp.asarray((images - centre) / scale, jnp.float32) if normal else jnp.asarray(images)
    changed = []
    for draw in range(DRAWS):
        places = np.arange(draw * len(images), (draw + 1) * len(images), dtype=np.uint32)
        batch = {
            "image": pixels,
            "targets": jnp.eye(len(images)),
            "sample_index": jnp.asarray(np.stack([np.zeros_like(places), places], -1)),
        }
        found = np.asarray(augmentation(batch, key=key)["image"], np.float64)
        changed.append(found * scale + centre if normal else found)
    return np.rint(changed).clip(0, 255).astype(np.uint8)
