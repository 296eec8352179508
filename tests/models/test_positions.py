"""Position embeddings: the originals' tables, and every kind at every place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import surgery
from vit_jax.models import positions
from vit_jax.models.layers import relative_bias

KINDS = [
    ("none", "input"),
    ("learned_1d", "input"),
    ("learned_1d", "every_block"),
    ("learned_1d", "every_block_shared"),
    ("learned_2d", "input"),
    ("learned_2d", "every_block"),
    ("learned_2d", "every_block_shared"),
    ("relative", "input"),
    ("sincos2d", "input"),
    ("sincos2d", "every_block_shared"),
]


@pytest.mark.parametrize("name", ["4x4x48", "14x14x192", "3x7x64"])
def test_sincos2d_is_the_table_of_big_vision(shared, name) -> None:
    rows, columns, width = map(int, name.split("x"))
    expected = np.load(shared / "fixtures/bv_sincos/io.npz")[f"bv_sincos_{name}"]
    ours = positions.sincos2d((rows, columns), width)
    assert ours.dtype == np.float32
    assert_close(ours, expected, atol=2e-6)  # float32 sines of up to 13 radians


@pytest.mark.parametrize("width", [4, 30])
def test_sincos2d_needs_four_parts_of_two_frequencies(width) -> None:
    with pytest.raises(ValueError, match=f"got {width}"):
        positions.sincos2d((2, 2), width)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("expected_posemb_24", (3, 3)),
        ("expected_posemb_48", (6, 6)),
        ("expected_posemb_80", (10, 10)),
        ("derived_posemb_32x56", (4, 7)),
        ("derived_posemb_72x40", (9, 5)),
    ],
)
def test_resized_tables_are_those_of_vit_jax(shared, name, grid) -> None:
    folder = shared / "fixtures/vitjax_posemb_interp"
    table = np.load(folder / "ckpt.npz")["Transformer/posembed_input/pos_embedding"]
    resized = positions.resize(table, source=(4, 4), target=grid)
    assert_close(resized, np.load(folder / "io.npz")[name], atol=1e-6)


def test_a_resize_keeps_corners_prefix_and_leading_axes() -> None:
    table = np.random.default_rng(0).normal(size=(2, 1, 2 + 3 * 4, 5)).astype(np.float32)
    out = np.asarray(positions.resize(table, source=(3, 4), target=(5, 9)))
    assert out.shape == (2, 1, 2 + 45, 5)
    np.testing.assert_array_equal(out[..., :2, :], table[..., :2, :])
    patches, old = out[..., 2:, :].reshape(2, 1, 5, 9, 5), table[..., 2:, :].reshape(2, 1, 3, 4, 5)
    corners = np.ix_([0, -1], [0, -1])
    for layer in range(2):
        assert_close(patches[layer, 0][corners], old[layer, 0][corners], atol=1e-6)
    assert_close(patches[:, :, 2, 0], old[:, :, 1, 0], atol=1e-6)  # the middle row


@pytest.mark.parametrize(("source", "target"), [((1, 1), (3, 2)), ((3, 2), (1, 1))])
def test_grids_of_one_are_resized(source, target) -> None:
    table = np.arange(source[0] * source[1], dtype=np.float32).reshape(1, -1, 1)
    out = np.asarray(positions.resize(table, source=source, target=target))
    assert out.shape == (1, target[0] * target[1], 1)
    assert not out.any(), "one row reads the first, and is repeated"


@pytest.mark.parametrize("method", ["bicubic_offset", "keys_offset", "sincos2d", "align_corners"])
def test_a_grid_that_stays_is_not_resized(method) -> None:
    table = np.random.default_rng(0).normal(size=(1, 7, 8))
    assert positions.resize(table, source=(2, 3), target=(2, 3), method=method) is table


def test_mocos_table_is_computed_anew_beside_rows_of_other_tokens() -> None:
    """Sines and cosines of the row, then of the column. Any other table is interpolated."""
    fixed = positions.moco((2, 3), 8)
    omega = 10_000.0 ** -(np.arange(2) / 2)
    waves = [f(place * omega) for place in (1, 2) for f in (np.sin, np.cos)]
    assert_close(fixed[0, 1 * 3 + 2], np.concatenate(waves), atol=1e-6)
    table = np.concatenate([np.full((1, 2, 8), 5.0), fixed], axis=1)
    again = positions.resize(table, source=(2, 3), target=(4, 5), method="sincos2d")
    np.testing.assert_array_equal(again[:, :2], 5)
    assert_close(again[:, 2:], positions.moco((4, 5), 8), atol=1e-6)
    for other in (table + 0.01, table[..., :6]):
        resized = positions.resize(other, source=(2, 3), target=(4, 5), method="sincos2d")
        bicubic = positions.resize(other, source=(2, 3), target=(4, 5), method="bicubic")
        np.testing.assert_array_equal(resized, bicubic)


def test_a_learned_2d_table_holds_its_column_then_its_row() -> None:
    rows, columns = np.arange(6.0).reshape(1, 3, 2), 10 + np.arange(8.0).reshape(1, 4, 2)
    table = np.asarray(positions.join_2d(jax.numpy.asarray(rows), jax.numpy.asarray(columns)))
    assert table.shape == (1, 12, 4)
    np.testing.assert_array_equal(table[0, 1 * 4 + 2], [*columns[0, 2], *rows[0, 1]])


@pytest.fixture(scope="module")
def logits() -> dict[tuple[str, str], np.ndarray]:
    """Logits of every kind at every place, jitted; all other parameters are the same."""
    plain = tiny.params(tiny.options(depth=2))
    found = {}
    for kind, place in KINDS:
        model = tiny.model(depth=2, position=kind, position_at=place)
        for path, array in plain.items():
            if "position" not in path:
                _at(model, path)[...] = jax.numpy.asarray(array)
        found[kind, place] = np.asarray(jax.jit(lambda m, x: m(x))(model, tiny.images()))
    return found


def _at(model, path: str):
    return functools.reduce(getattr, path.split("/"), model)


def test_kinds_and_places_of_positions_differ(logits) -> None:
    for i, one in enumerate(KINDS):
        assert np.isfinite(logits[one]).all()
        for other in KINDS[:i]:
            assert np.abs(logits[one] - logits[other]).max() > 1e-3, (one, other)


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
@pytest.mark.parametrize(("kind", "place"), KINDS)
def test_parameters_of_positions(kind, place, pool) -> None:
    """The shapes that each kind adds to a model without positions; grid 2 x 3, depth 3."""
    tokens = 7 if pool == "token" else 6
    lead = (3, 1) if place == "every_block" else (1,)
    expected = {
        "none": {},
        "sincos2d": {},
        "learned_1d": {
            "encoder/blocks/position" if place == "every_block" else "encoder/position": (
                *lead,
                tokens,
                32,
            )
        },
        "learned_2d": {
            "encoder/position_rows": (*lead, 2, 16),
            "encoder/position_columns": (*lead, 3, 16),
        },
        "relative": {"encoder/blocks/attention/relative": (3, 2 * tokens - 1, 8)},
    }[kind]
    options = tiny.options(position=kind, position_at=place, pool=pool)
    without = surgery.shapes(tiny.options(position="none", pool=pool))
    assert surgery.shapes(options) == without | expected


@pytest.mark.parametrize("kind", ["none", "relative", "sincos2d"])
def test_only_models_with_positions_see_the_order_of_patches(kind) -> None:
    model = tiny.model(depth=1, position=kind, pool="gap")
    images = tiny.images()
    swapped = images.reshape(2, 2, 8, 24, 3)[:, ::-1].reshape(images.shape)  # rows of patches
    both = jax.jit(lambda m, x: m(x))(model, jax.numpy.concatenate([images, swapped]))
    same = np.allclose(both[:2], both[2:], atol=1e-5)
    assert same == (kind == "none")


def test_relative_positions_see_offsets_only() -> None:
    """For equal queries, the bias depends only on the offset between query and key."""
    rng = np.random.default_rng(0)
    q = jax.numpy.asarray(rng.normal(size=(1, 5, 2, 4)), np.float32)
    table = jax.numpy.asarray(rng.normal(size=(9, 4)), np.float32)
    bias = np.asarray(relative_bias(jax.numpy.broadcast_to(q[:, :1], q.shape), table))
    assert_close(bias[..., 1:, 1:], bias[..., :-1, :-1], atol=1e-6)
    expected = np.einsum("hd,d->h", q[0, 0], table[3 - 1 + 4]) / 2
    assert_close(bias[0, :, 3, 1], expected, atol=1e-6)


def test_rows_of_a_1d_table_keep_the_first_and_the_last() -> None:
    table = np.float32([[[0.0], [1.0], [4.0]]])
    np.testing.assert_allclose(positions.resize_rows(table, 5)[0, :, 0], [0, 0.5, 1, 2.5, 4])


def test_tables_are_resized_under_jit_and_differentiated() -> None:
    table = np.random.default_rng(3).normal(size=(1, 1 + 12, 8)).astype(np.float32)
    kernel = np.random.default_rng(4).normal(size=(4, 6, 3, 5)).astype(np.float32)
    bias = np.random.default_rng(5).normal(size=(5 * 7 + 3, 2)).astype(np.float32)

    def changed(table, kernel, bias):
        return (
            positions.resize(table, source=(3, 4), target=(5, 2), method="bicubic"),
            positions.resample_patch(kernel, (8, 3)),
            positions.resize_relative(bias, source=(3, 4), target=(4, 6)),
            positions.resize_rows(table, 7),
        )

    traced = jax.jit(changed)(table, kernel, bias)
    for ours, exact in zip(traced, changed(table, kernel, bias), strict=True):
        assert isinstance(exact, np.ndarray)
        assert_close(ours, exact, atol=1e-5)
    gradient = jax.grad(
        lambda table: positions.resize(table, source=(3, 4), target=(6, 8))[:, 1:].sum()
    )(jnp.asarray(table))
    assert gradient.sum() == pytest.approx(48 * 8, rel=1e-5)
    np.testing.assert_array_equal(gradient[:, 0], 0)
