"""kNN is exact on any mesh: it equals a plain search over all training images."""

import jax
import numpy as np
import pytest

from vit_jax.evaluators import knn
from vit_jax.evaluators.knn import Bank, Knn, make_search
from vit_jax.parallel.mesh import AXES, BATCH, MeshConfig, make_mesh

CLASSES = 7


def plain(bank, labels, valid, queries, *, k: int, temperature: float) -> np.ndarray:
    """Votes of the k most similar images, the earlier one first where equal."""
    similarity = np.where(valid, queries.astype(np.float64) @ bank.T.astype(np.float64), -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    votes = np.zeros((len(queries), CLASSES))  # float64 holds exp(1 / 0.005)
    for row, nearest in enumerate(order):
        for place in nearest:
            if np.isfinite(similarity[row, place]):
                weight = np.exp(similarity[row, place] / temperature) if temperature else 1.0
                votes[row, labels[place]] += weight
    return votes


def mesh_of(name: str) -> jax.sharding.Mesh:
    sizes = {"one": (1, 1, 1), "data": (8, 1, 1), "all": (2, 2, 2)}[name]
    if name == "one":
        auto = (jax.sharding.AxisType.Auto,) * 3
        return jax.make_mesh(sizes, AXES, axis_types=auto, devices=jax.devices()[:1])
    return make_mesh(MeshConfig(**dict(zip(AXES, sizes, strict=True))))


def test_features_have_the_length_one_so_that_their_products_are_cosines(monkeypatch) -> None:
    monkeypatch.setattr(knn, "of_images", lambda context, images, params: images)
    found = knn._feature_step(None)({}, np.float32([[3, -4], [0, 0], [1e-3, 0]]))
    np.testing.assert_allclose(found, [[0.6, -0.8], [0, 0], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("mesh_name", ["one", "data", "all"])
@pytest.mark.parametrize(("k", "temperature"), [((1, 2, 20), 0.07), ((20,), 0.0), ((20,), 0.005)])
def test_the_vote_equals_a_plain_search_on_any_mesh(mesh_name, k, temperature) -> None:
    rng = np.random.default_rng(7)
    features = rng.standard_normal((48, 6)).astype(np.float32)
    features[24:30] = features[:6]  # equal similarities: the earlier image goes first
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(0, CLASSES, 48).astype(np.int32)
    valid = rng.random(48) > 0.2
    queries = rng.standard_normal((16, 6)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    wanted = rng.integers(0, CLASSES, 16).astype(np.int32)
    mask = rng.random(16) > 0.1
    mesh = mesh_of(mesh_name)
    rows = jax.NamedSharding(mesh, jax.P(None, *BATCH))
    bank = Bank(
        jax.device_put(features.reshape(3, 16, 6), rows),
        jax.device_put(labels.reshape(3, 16), rows),
        jax.device_put(valid.reshape(3, 16), rows),
    )
    with jax.set_mesh(mesh):
        search = make_search(mesh, k=k, num_classes=CLASSES, temperature=temperature)
        placed = [
            jax.device_put(array, jax.NamedSharding(mesh, BATCH))
            for array in (queries, wanted, mask)
        ]
        found = search(bank, *placed)
    assert float(found["count"]) == mask.sum()
    for number in k:
        votes = plain(features, labels, valid, queries, k=number, temperature=temperature)
        suffix = f"_k{number}" if len(k) > 1 else ""
        ranked = np.argsort(-votes, axis=1, kind="stable") == wanted[:, None]
        assert float(found[f"top1{suffix}"]) == (ranked[:, 0] & mask).sum()
        of_first = ranked[:, : min(5, number)].any(axis=1)  # fewer classes have a vote
        assert float(found[f"top5{suffix}"]) == (of_first & mask).sum()


@pytest.mark.parametrize(
    "fields", [{"k": (0,)}, {"k": (5, 5)}, {"k": ()}, {"temperature": -1.0}, {"train_images": -5}]
)
def test_numbers_that_make_no_sense_are_refused(fields) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is"):
        Knn(**fields)
