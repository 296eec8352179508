"""A program is refused if it differs from the model by more than the bound of its kernels."""

import numpy as np
import pytest

from vit_jax.errors import RunFailed
from vit_jax.export import parity
from vit_jax.export.parity import Images, Reference

CLASSES = 5


def logits(classes: np.ndarray) -> dict[str, np.ndarray]:
    return {"logits": np.eye(CLASSES, dtype=np.float32)[classes]}


def images(number: int, *, labels: np.ndarray | None = None, random: bool = False) -> Images:
    known = () if labels is None else tuple(map(int, labels))
    pixels = np.zeros((number, 2, 2, 3), np.uint8)
    return Images(pixels=pixels, labels=known, source="a test", random=random)


def judged(found, exact, on: Images, *, stored="int8", rounded=None):
    model = Reference(exact=exact, rounded=found if rounded is None else rounded, seconds={})
    return parity.judged(found, model, on, stored=stored, name="program")


def test_int8_may_change_the_class_of_one_photograph_in_twenty() -> None:
    exact = np.arange(100) % CLASSES
    found = exact.copy()
    found[:5] = (exact[:5] + 1) % CLASSES
    report = judged(logits(found), logits(exact), images(100))
    assert report["same_class"] == 0.95 and report["bound"] == {"same_class": 0.95}
    found[5] = (exact[5] + 1) % CLASSES
    with pytest.raises(RunFailed, match=r"the class of the model to 94\.0% .* int8 needs 95\.0%"):
        judged(logits(found), logits(exact), images(100))


def test_int8_may_lose_half_a_point_of_top1_or_one_image() -> None:
    labels = np.arange(200) % CLASSES
    found = labels.copy()
    found[0] = (labels[0] + 1) % CLASSES
    report = judged(logits(found), logits(labels), images(200, labels=labels))
    assert report["top1"] == report["bound"]["top1"] == 0.995
    found[1] = (labels[1] + 1) % CLASSES
    with pytest.raises(RunFailed, match=r"the right class to 99\.0% .* int8 needs 99\.5%"):
        judged(logits(found), logits(labels), images(200, labels=labels))


def test_int8_must_equal_the_model_with_the_same_kernels() -> None:
    exact = logits(np.arange(4))
    with pytest.raises(RunFailed, match="differs from the model with int8 kernels by 0.001"):
        judged({"logits": exact["logits"] * np.float32(1.001)}, exact, images(4), rounded=exact)


@pytest.mark.parametrize("name, on", [("features", images(4)), ("logits", images(4, random=True))])
def test_int8_without_classes_of_photographs_has_a_bound_on_the_difference(name, on) -> None:
    exact = {name: np.ones((4, 3), np.float32)}
    near, far = ({name: exact[name] * np.float32(factor)} for factor in (1.05, 1.2))
    assert judged(near, exact, on)["bound"] == {"relative": parity.INT8_BOUND}
    with pytest.raises(RunFailed, match="differs from the model by 0.2"):
        judged(far, exact, on)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8"])
def test_what_is_not_a_number_is_refused(stored, value) -> None:
    exact = logits(np.arange(4))
    broken = {"logits": np.where(exact["logits"] > 0, np.float32(value), 0)}
    with pytest.raises(RunFailed, match=r"by (nan|inf)"):
        judged(broken, exact, images(4), stored=stored)


def test_a_difference_is_a_share_of_the_largest_value() -> None:
    exact = {"features": np.float32([[1, 100], [2, 3]])}
    near = {"features": exact["features"] + np.float32([[0, 0], [5e-4, 0]])}
    (found,) = judged(near, exact, images(2), stored="float32")["outputs"].values()
    assert found["relative"] == pytest.approx(5e-6, rel=1e-2)
    assert found["absolute"] == pytest.approx(5e-4, rel=1e-2)


def test_bfloat16_may_differ_by_twice_as_much_as_the_model_in_bfloat16() -> None:
    exact = {"features": np.ones((2, 3), np.float32)}
    rounded, near, far = ({"features": exact["features"] * x} for x in (1.01, 1.019, 1.022))
    report = judged(near, exact, images(2), stored="bfloat16", rounded=rounded)
    assert report["bound"]["relative"] == pytest.approx(0.02, rel=1e-3)
    with pytest.raises(RunFailed, match="differs from the model by 0.022"):
        judged(far, exact, images(2), stored="bfloat16", rounded=rounded)


def test_speed_is_measured_for_one_image_and_for_many_or_for_the_batch_of_the_program() -> None:
    seen = []

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(pixels))
        return {}

    pixels = images(3).pixels
    assert parity.speed(run, pixels, None).keys() == {"1", str(parity.BATCH)}
    assert set(seen) == {1, parity.BATCH}
    assert parity.speed(run, pixels, 8).keys() == {"8"} and seen[-1] == 8
