"""Labels all training images of a config by a teacher, from their centre, without augmentation."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.config import Config
from vit_jax.data import augment, opening, pipeline
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import UNKNOWN, DataFacts, Source
from vit_jax.images import transform_for
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import frozen, teacher_file
from vit_jax.training.design import eval_batch_size

_REMEDY = "repair them, leave them out, or set a larger --config.data.max_bad"


def label(config: Config, path: str, *, logits: bool) -> tuple[teacher_file.Answers, str]:
    """What the teacher at `path` answers for the training images of `config`, and a summary.

    The teacher sees each image as its own preprocessing says: the centre, in its own size and value
    range. Raises ValueError if the teacher or the data cannot be used.
    """
    source = opening.open_train(config.data, labelled=False)
    names = source.class_names
    if not names:
        raise ValueError(f"{source.name} has no classes: a teacher chooses among known classes")
    facts = DataFacts(train_size=len(source), class_names=names, num_classes=len(names))
    teacher = frozen.read_model(path, "--workdir", facts)
    shape, dtype = ((len(source), len(names)), np.float16) if logits else ((len(source),), np.int32)
    rows = np.full(shape, np.nan if logits else UNKNOWN, dtype)
    hits = labelled = 0
    for ids, found, labels in _answers(config, source, teacher):
        best = found.argmax(axis=1)
        if not np.isfinite(halves := found.astype(np.float16)).all():
            raise ValueError(f"--workdir ({path}): the logits are not finite in float16")
        rows[ids] = halves if logits else best
        several = labels.ndim == 2
        labelled += len(labels) if several else int(np.count_nonzero(labels != UNKNOWN))
        hits += int(labels[np.arange(len(best)), best].sum() if several else (labels == best).sum())
    answers = teacher_file.Answers(
        rows=rows,
        class_names=names,
        data=source.identity().digest,
        teacher=f"{path} {teacher.digest}",
    )
    agrees = f", which agree with {100 * hits / labelled:.2f}% of the labels" if labelled else ""
    return answers, f"{'logits' if logits else 'classes'} of {len(source):,} images{agrees}"


def _answers(
    config: Config, source: Source, teacher: frozen.Loaded
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ids (n,), logits float32 (n, K) and labels (n,) of the readable images of each batch."""
    mesh, own = mesh_lib.make_mesh(config.mesh), teacher.preprocessing
    design = frozen.design(teacher, mesh, mean=own.mean, std=own.std)
    params = frozen.place({"teacher": teacher}, {"teacher": design})["teacher"]
    batch_size = eval_batch_size(config, mesh)

    @jax.jit
    def answer(params: Any, images: jax.Array) -> jax.Array:
        normal = augment.normalize(images, mean=own.mean, std=own.std)
        return design.bound(params)(normal).astype(jnp.float32)

    batches = pipeline.eval_batches(
        source,
        transform_for(own, channels=teacher.options.channels, orient=config.data.orientation),
        batch_size=batch_size,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        bad=BadImages(size=len(source), max_bad=config.data.max_bad, remedy=_REMEDY),
        labelled=False,
    )
    with jax.set_mesh(mesh), batches:
        for batch in batches:
            images = mesh_lib.to_global({"image": batch["image"]}, mesh, batch_size=batch_size)
            read = batch["mask"]
            logits = np.asarray(answer(params, images["image"]))
            yield batch["id"][read], logits[read], batch["label"][read]
