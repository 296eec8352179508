"""Classes are matched by name where there are names, and assumptions are noted."""

import jax
import numpy as np
import pytest

import vit_jax
from tests.models import tiny
from tests.parts import model_config
from vit_jax.checkpoints import classes, surgery
from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.training import setup


def match(theirs: tuple[str, ...], ours: tuple[str, ...], count: int = 3) -> classes.Match:
    return classes.match(
        theirs, ours, their_count=len(theirs) or count, our_count=len(ours) or count
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "kind", "rows", "message"),
    [
        (("a", "b", "c"), ("a", "b", "c"), "same", (), ""),
        # ImageNet has "crane" twice: the same list is the same classes.
        (("crane", "dog", "crane"), ("crane", "dog", "crane"), "same", (), ""),
        (
            ("crane", "dog", "crane"),
            ("crane", "crane", "dog"),
            *("other", (), "several classes have the name crane"),
        ),
        (("crane", "dog", "crane"), ("crane", "dog", "cat"), "other", (), "cat only here"),
        (("zebra", "cat", "dog"), ("cat", "dog", "zebra"), "reordered", (1, 2, 0), "order"),
        (("Cat", "Dog"), ("cat", "dog"), "same", (), "ignoring case"),
        (("Dog", "Cat "), ("cat", "dog"), "reordered", (1, 0), "ignoring case"),
        # Two classes that differ in case only are two classes.
        (("cat", "Cat"), ("Cat", "cat"), "reordered", (1, 0), "another order"),
        (("cat", "Cat"), ("cat", "dog"), "other", (), "Cat only there; dog only here"),
        (("tabby, tabby cat", "dog"), ("tabby", "dog"), "other", (), "tabby, tabby cat only there"),
        (("a", "b", "c"), ("a", "b", "d"), "other", (), "c only there; d only here"),
        (("a", "b"), ("a", "b", "c"), "other", (), "2 classes there, 3 here"),
        ((), ("a", "b", "c"), "by_number", (), "only one side names its 3 classes (a, b, c)"),
        (("a", "b", "c"), (), "by_number", (), "matched by number"),
        ((), (), "by_number", (), "its 3 classes have no names"),
        # Folders named by the numbers of a model without names, sorted as text: 0, 1, 10, 11, 2.
        ((), ("1", "2", "0"), "reordered", (1, 2, 0), "(1, 2, 0) are matched by these numbers"),
        (("1", "2", "0"), (), "reordered", (2, 0, 1), "classes named by numbers"),
        ((), ("0", "1", "2"), "by_number", (), "matched by number"),
        ((), ("1", "2", "3"), "by_number", (), "matched by number"),
        ((), ("a", "b"), "other", (), "3 classes there, 2 here"),
    ],
)
def test_classes_are_matched_by_name_and_assumptions_are_noted(
    theirs, ours, kind, rows, message
) -> None:
    found = classes.match(
        theirs, ours, their_count=len(theirs) or 3, our_count=len(ours) or len(theirs) or 3
    )
    assert (found.kind, found.rows) == (kind, rows)
    assert message in found.note and bool(message) == bool(found.note)


@pytest.mark.parametrize("distillation", [False, True])
def test_rows_of_the_head_follow_the_names(distillation) -> None:
    options = tiny.options(num_classes=3, distillation=distillation)
    before = tiny.params(options)
    after, report = surgery.adapt(
        before,
        source=options,
        target=options,
        key=jax.random.key(0),
        classes=match(("zebra", "cat", "dog"), ("cat", "dog", "zebra")),
    )
    heads = ("head", "head_distillation")[: 1 + distillation]
    moved = tuple(f"{head}/{leaf}" for head in heads for leaf in ("bias", "kernel"))
    assert report.reordered == moved
    assert f"reordered by class name: {', '.join(moved)}" in str(report)
    assert "note: the head is kept: the same class names in another order" in str(report)
    for path, array in before.items():
        expected = array[..., [1, 2, 0]] if path in moved else array
        np.testing.assert_array_equal(after[path], expected, err_msg=path)


@pytest.mark.parametrize("name", ["Ti/16", "Swin-T", "R50x1"])
def test_other_names_get_a_zero_head_in_every_family(name) -> None:
    model = zoo.options(name, num_classes=2)
    before = {path: np.ones(shape, np.float32) for path, shape in surgery.shapes(model).items()}
    after, report = surgery.adapt(
        before,
        source=model,
        target=model,
        key=jax.random.key(0),
        classes=match(("bus", "car"), ("polyp", "ulcer")),
    )
    assert not after["head/kernel"].any() and not after["head/bias"].any()
    assert "because the classes differ: bus, car only there; polyp, ulcer only here" in (
        str(report)
    )


def test_same_classes_but_another_feature_size_get_a_new_head() -> None:
    source, target = (tiny.options(num_classes=2, representation_size=size) for size in (0, 8))
    after, report = surgery.adapt(
        tiny.params(source),
        source=source,
        target=target,
        key=jax.random.key(0),
        classes=match(("a", "b"), ("b", "a")),
    )
    assert not after["head/kernel"].any()
    assert report.reordered == () and "head/kernel" in report.initialised


def test_a_note_on_the_head_needs_a_head_in_both_models() -> None:
    for classes_there, classes_here in ((3, 0), (0, 3)):
        source, target = (tiny.options(num_classes=n) for n in (classes_there, classes_here))
        _, report = surgery.adapt(
            tiny.params(source),
            source=source,
            target=target,
            key=jax.random.key(0),
            classes=classes.match((), (), their_count=classes_there, our_count=classes_here),
        )
        assert report.notes == ()


def started(path, class_names, **fields) -> setup.Start:
    config = Config(
        init_from=str(path), image_size=(16, 16), model=model_config(num_heads=2), **fields
    )
    facts = DataFacts(train_size=100, class_names=class_names, num_classes=len(class_names))
    return setup.fresh_start(config, facts)


def test_a_run_takes_over_a_head_by_class_name(tmp_path) -> None:
    """The class names come from a Hugging Face folder."""
    model = tiny.model(activation="gelu_erf", image_size=(16, 16), num_heads=2, num_classes=3)
    model.class_names = ("zebra", "cat", "dog")
    vit_jax.save(model, tmp_path / "hf", layout="hf")
    kernel = np.asarray(model.head.kernel[...])

    begin = started(tmp_path / "hf", ("cat", "dog", "zebra"))
    assert begin.params is not None
    np.testing.assert_array_equal(begin.params["head/kernel"], kernel[:, [1, 2, 0]])
    assert "reordered by class name: head/bias, head/kernel" in begin.report

    begin = started(tmp_path / "hf", ("polyp", "ulcer", "wound"))
    assert begin.params is not None and not begin.params["head/kernel"].any()
    assert "the head starts anew" in begin.report

    begin = started(tmp_path / "hf", ("n01", "n02", "n03"), init_head="by_number")
    assert begin.params is not None
    np.testing.assert_array_equal(begin.params["head/kernel"], kernel)
    assert "matched by number" in begin.report


def test_a_head_without_class_names_is_matched_by_number_with_a_note(tmp_path) -> None:
    model = tiny.model(image_size=(16, 16), num_heads=2, num_classes=2)
    vit_jax.save(model, tmp_path / "a.npz", layout="vit_jax")
    begin = started(tmp_path / "a.npz", ("cat", "dog"))
    assert begin.params is not None and begin.params["head/kernel"].any()
    assert "only one side names its 2 classes (cat, dog): they are matched by number" in (
        begin.report
    )


def test_a_head_for_another_number_of_classes_starts_at_zero_with_a_note(tmp_path, caplog) -> None:
    model = tiny.model(image_size=(16, 16), num_heads=2, num_classes=2)
    vit_jax.save(model, tmp_path / "a.npz", layout="vit_jax")
    again = vit_jax.load(tmp_path / "a.npz", num_heads=2, num_classes=5)
    assert not again.head.kernel[...].any()
    assert (
        "the head starts anew, because the classes differ: 2 classes there, 5 here" in caplog.text
    )
