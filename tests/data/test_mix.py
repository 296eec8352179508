"""Mixup with CutMix mixes as timm does, given the same draws, and draws as it does."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from vit_jax.data.augment import AUGMENTATIONS
from vit_jax.data.augment.contract import at
from vit_jax.data.augment.erase import Erase, rectangle
from vit_jax.data.augment.mix import Draw, Mix, box_of_share, box_of_sides, mixed
from vit_jax.objectives.classification import one_hot_targets

KEY = jax.random.key(0)
CASES = [
    *("mixup_batch", "cutmix_batch", "cutmix_minmax_batch", "cutmix_nocorrect"),
    *("both_pair", "both_elem"),
]


def draws_of(log: list[Any], *, count: int, pair: bool) -> Draw:
    """The draws that timm's log tells."""
    (_, (shares, cuts)), *boxes = log
    shares, cuts = np.atleast_1d(shares), np.atleast_1d(cuts)
    table = np.zeros((len(shares), 4), int)
    places = [i for i in range(len(shares)) if cuts[i] and shares[i] != 1]
    for i, (_, (top, bottom, left, right, _)) in zip(places, boxes, strict=True):
        table[i] = (top, bottom, left, right)
    if pair:
        shares, cuts, table = (np.concatenate([a, a[::-1]]) for a in (shares, cuts, table))
    assert len(shares) in (1, count)
    return Draw(jnp.asarray(shares, jnp.float32), jnp.asarray(cuts), jnp.asarray(table, jnp.int32))


def test_the_same_draws_give_what_timm_gives(shared) -> None:
    folder = shared / "fixtures/timm_mixup"
    io, draws = np.load(folder / "io.npz"), json.loads((folder / "meta.json").read_text())["draws"]
    images, labels = jnp.asarray(io["images"]), jnp.asarray(io["labels"], jnp.int32)
    seen = set()
    for name, drawn in draws.items():
        kind, _, rest = name.partition("_s0")
        targets = one_hot_targets(labels, num_classes=10, smoothing=0.1 if rest[:2] == ".1" else 0)
        draw = draws_of(drawn["log"], count=8, pair="pair" in name)
        got = mixed(
            {"image": images, "targets": targets}, draw, exact_share="nocorrect" not in name
        )
        assert_close(got["targets"], io[f"{name}_targets"], atol=1e-6, about=name)
        if f"{name}_images" in io:
            assert_close(got["image"], io[f"{name}_images"], atol=1e-6, about=name)
            seen.add(kind)
    assert len(seen) >= 5, seen


def test_boxes_are_timms() -> None:
    """Clipped to the image, around any of its pixels, with the floor of the sides."""
    keys = jax.random.split(KEY, 2000)
    boxes = jax.jit(
        jax.vmap(lambda key, share: box_of_share(key, (12, 16), share=share), in_axes=(0, None))
    )
    for share, height, width in ((0.8, 5, 7), (0.7, 6, 8)):  # odd sides too
        top, bottom, left, right = np.asarray(boxes(keys, jnp.float32(share))).T
        assert top.min() == left.min() == 0 and (bottom.max(), right.max()) == (12, 16)
        assert (bottom - top).max() == int(12 * np.sqrt(1 - share)) == height
        assert (right - left).max() == int(16 * np.sqrt(1 - share)) == width
    assert_close(np.mean((top + bottom) / 2), 5.7, atol=0.3)
    sides = jax.vmap(lambda key: box_of_sides(key, (12, 16), low=0.25, high=0.75))(
        jax.random.split(KEY, 2000)
    )
    top, bottom, left, right = np.asarray(sides).T
    assert ((bottom - top).min(), (bottom - top).max()) == (3, 8)  # randint leaves out the end
    assert ((right - left).min(), (right - left).max()) == (4, 11)
    assert top.min() == left.min() == 0 and (bottom.max(), right.max()) == (12, 16)


def batch(count: int = 6) -> dict[str, jax.Array]:
    images = jax.random.normal(jax.random.key(1), (count, 8, 8, 3))
    targets = jax.nn.one_hot(jnp.arange(count), count)
    index = jnp.stack([jnp.zeros(count, jnp.uint32), jnp.arange(count, dtype=jnp.uint32)], 1)
    return {"image": images, "targets": targets, "sample_index": index}


@pytest.mark.parametrize("mode", ["batch", "pair", "sample"])
def test_shares_of_targets_sum_to_one_and_follow_the_mode(mode) -> None:
    got = Mix(mode=mode, cutmix_alpha=0.0)(batch(), key=KEY)
    targets = np.asarray(got["targets"])
    assert_close(targets.sum(1), 1, rtol=1e-6)
    shares = np.diag(targets)
    if mode == "batch":
        assert len(np.unique(shares)) == 1
    elif mode == "pair":
        np.testing.assert_array_equal(shares, shares[::-1])
        assert len(np.unique(shares)) == 3
    else:
        assert len(np.unique(shares)) == 6


def test_the_draw_of_a_sample_depends_on_its_place_alone() -> None:
    whole = Mix(mode="sample")
    size = (8, 8)
    one = whole.draw(jax.random.key(3), size=size)
    again = jax.jit(lambda key: whole.draw(key, size=size))(jax.random.key(3))
    for ours, theirs in zip(one, again, strict=True):
        assert_close(ours, theirs, rtol=1e-6)


def test_a_probability_of_none_changes_nothing() -> None:
    given = batch()
    for options in ({}, {"cutmix_sides": (0.2, 0.8)}, {"mode": "pair"}):
        got = Mix(probability=0.0, **options)(given, key=KEY)
        for name in ("image", "targets"):
            np.testing.assert_array_equal(got[name], given[name])


def test_shares_have_the_moments_of_their_distributions() -> None:
    mix = Mix(mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_probability=0.3, mode="sample")
    draw = jax.vmap(lambda key: mix.draw(key, size=(8, 8)))(jax.random.split(KEY, 20_000))
    cut = np.asarray(draw.cut)
    assert abs(cut.mean() - 0.3) < 0.02
    for alpha, chosen in ((0.8, ~cut), (1.0, cut)):
        shares = np.asarray(draw.share)[chosen]
        assert abs(shares.mean() - 0.5) < 0.02
        assert_close(shares.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.05)


def test_whether_to_mix_is_drawn_apart_from_how() -> None:
    mix = Mix(probability=0.5, cutmix_probability=0.3)
    draw = jax.vmap(lambda key: mix.draw(key, size=(8, 8)))(jax.random.split(KEY, 20_000))
    mixes = np.asarray(draw.share) < 1
    assert abs(mixes.mean() - 0.5) < 0.02
    assert abs(np.asarray(draw.cut)[mixes].mean() - 0.3) < 0.02
    assert not np.asarray(draw.cut)[~mixes].any()


def test_a_box_of_given_sides_sets_the_share() -> None:
    """As in timm, also without the correction of clipped boxes."""
    given = batch(2)
    mix = Mix(mixup_alpha=0.0, cutmix_sides=(0.25, 0.75), exact_share=False)
    for seed in range(3):
        got = mix(given, key=jax.random.key(seed))
        kept = np.asarray((got["image"] == given["image"]).all(-1)[0]).mean()
        assert_close(got["targets"][0, 0], kept, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mixup_alpha": -1.0}, "mixup_alpha is -1.0"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha is nan"),
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, "are 0: leave it out"),
        ({"probability": 1.5}, "probability is 1.5: it must be in"),
        ({"cutmix_probability": -0.5}, "cutmix_probability is -0.5"),
        ({"cutmix_sides": (0.5,)}, "cutmix_sides are"),
        ({"cutmix_sides": (0.8, 0.2)}, "cutmix_sides are"),
    ],
)
def test_options_out_of_range_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        Mix(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probability": 1.5}, "probability is 1.5"),
        ({"max_count": 0}, "max_count is 0: it must be from 1"),
        ({"area": (0.5, 0.2)}, "area is"),
        ({"aspect": 0.0}, "aspect is 0.0"),
    ],
)
def test_options_of_erase_out_of_range_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        Erase(**options)


def test_erased_rectangles_have_the_areas_and_proportions_of_the_paper() -> None:
    shares = {"area": (0.02, 1 / 3), "aspect": 0.3}  # timm's; those of the fields of Erase
    keys = jax.random.split(KEY, 1500)
    masks = np.asarray(jax.vmap(lambda key: rectangle(key, (40, 60), **shares))(keys))
    areas = masks.mean(axis=(1, 2))
    assert areas.min() > 0.015 and areas.max() < 0.36
    assert_close(areas.mean(), (0.02 + 1 / 3) / 2, atol=0.02)
    heights, widths = masks.any(2).sum(1), masks.any(1).sum(1)
    np.testing.assert_array_equal(masks.sum((1, 2)), heights * widths)
    ratio = np.log(heights / widths)
    assert abs(np.median(ratio)) < 0.1
    assert -np.log(0.3) - 0.2 < abs(ratio).max() < -np.log(0.3) + 0.3
    for side, length in ((masks.any(2), 40), (masks.any(1), 60)):
        first, last = side.argmax(1), length - 1 - side[:, ::-1].argmax(1)
        assert first.min() == 0 and last.max() == length - 1, "it may touch every edge"


def test_several_rectangles_share_the_area_of_one() -> None:
    """Timm's max_count: 1 to that many, each with its part of the area and its own content."""
    images = batch(300) | {"image": jnp.zeros((300, 40, 60, 3))}
    erase = Erase(probability=1.0, max_count=3, area=(0.3, 0.3), aspect=1.0, fill="colour")
    got = np.asarray(erase(images, key=KEY)["image"])
    colours = [len(np.unique(image.reshape(-1, 3), axis=0)) - 1 for image in got]
    counts = np.bincount(colours, minlength=4)
    assert counts[0] == 0 and (counts[1:4] > 60).all()
    areas = (got != 0).all(-1).mean((1, 2))
    assert areas.max() < 0.32
    assert_close(areas[np.array(colours) == 1], 0.3, atol=0.02)


def test_one_rectangle_is_that_of_a_count_of_one() -> None:
    """The draws of a run do not change with the fields that were added."""
    one = Erase(probability=1.0)(batch(4), key=KEY)["image"]
    key = jax.random.split(at(KEY, batch(4)["sample_index"][2]), 3)[1]
    changed = np.asarray(one[2] != batch(4)["image"][2]).any(-1)
    np.testing.assert_array_equal(
        changed, rectangle(key, batch(4)["image"].shape[1:3], area=(0.02, 1 / 3), aspect=0.3)
    )


def test_a_union_of_classes_needs_images_of_several() -> None:
    """Softmax targets of two classes would sum to 2."""
    mix = Mix(several_labels="union")
    mix.check_labels(several=True)
    with pytest.raises(ValueError, match="several_labels is union, and images have one class"):
        mix.check_labels(several=False)


@pytest.mark.parametrize("exact", [True, False])
def test_a_clipped_box_has_its_own_share_or_the_one_that_was_drawn(exact) -> None:
    mix = Mix(mixup_alpha=0.0, cutmix_alpha=1.0, exact_share=exact, mode="sample")
    given = batch(200)
    got = mix(given, key=KEY)
    draws = jax.vmap(lambda i: mix.draw(at(KEY, i), size=given["image"].shape[1:3]))(
        given["sample_index"]
    )
    top, bottom, left, right = np.asarray(draws.box).T
    height, width = given["image"].shape[1:3]
    shares = {True: 1 - (bottom - top) * (right - left) / (height * width), False: draws.share}
    assert (abs(shares[True] - shares[False]) > 0.2).any(), "some boxes are clipped"
    weight = np.asarray(shares[exact])[:, None]
    targets = np.asarray(given["targets"])
    assert_close(got["targets"], weight * targets + (1 - weight) * targets[::-1], atol=1e-5)


@pytest.mark.parametrize("fill", ["noise", "colour", "zero"])
def test_a_share_of_the_images_is_erased_by_what_is_asked_for(fill) -> None:
    given = batch(3000)
    got = Erase(probability=0.25, fill=fill)(given, key=KEY)["image"]
    changed = np.asarray((got != given["image"]).any(-1))
    assert abs(changed.any((1, 2)).mean() - 0.25) < 0.03
    first = int(np.argmax(changed.any((1, 2))))
    inside = np.asarray(got[first])[changed[first]]
    if fill == "zero":
        assert not inside.any()
    elif fill == "colour":
        np.testing.assert_array_equal(inside, np.broadcast_to(inside[:1], inside.shape))
        assert len(np.unique(inside)) == 3, "a number for each channel"
    else:
        assert len(np.unique(inside)) == inside.size
    if fill != "zero":  # from a normal distribution, as timm's
        images = changed.any((1, 2))
        values = np.asarray(got)[changed] if fill == "noise" else _first(got, changed)[images]
        assert abs(values.mean()) < 0.06 and abs(values.std() - 1) < 0.04


def _first(images, changed) -> np.ndarray:
    """The first changed pixel (B, C) of each image."""
    places = changed.reshape(len(images), -1).argmax(axis=1)
    flat = np.asarray(images).reshape(len(images), -1, images.shape[-1])
    return flat[np.arange(len(images)), places]


def test_an_erasing_probability_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="probability is 2: it must be in"):
        Erase(probability=2)


def test_both_have_a_name_in_configs() -> None:
    assert (AUGMENTATIONS["mix"], AUGMENTATIONS["erase"]) == (Mix, Erase)
