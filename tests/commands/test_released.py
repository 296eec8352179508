"""Released weights from the command line: convert them, and measure them on real photographs."""

import json
import tarfile

import numpy as np
import pytest

from tests import cli


@pytest.fixture(scope="module")
def photographs(shared, tmp_path_factory):
    """The first 32 of 200 ImageNet photographs, and the map from their names to classes."""
    folder = tmp_path_factory.mktemp("photographs")
    known = np.load(shared / "data/vit_Ti16_in1k_logits_200.npz")
    labels = {str(f): int(c) for f, c in zip(known["files"][:32], known["labels"], strict=False)}
    with tarfile.open(shared / "data/imagenet_sample_200.tar") as archive:
        for name in labels:
            archive.extract(name, folder, filter="data")
    (folder / "labels.json").write_text(json.dumps(labels))
    hits = (known["logits"][:32].argmax(1) == known["labels"][:32]).sum()
    return folder, int(hits)


@pytest.mark.parametrize("file", ["vit_Ti16_in1k.npz", "vit_Ti16_in1k_timm.safetensors"])
def test_released_weights_reach_their_published_accuracy(shared, photographs, file, printed):
    folder, hits = photographs
    labels = ["--images", str(folder), "--labels", str(folder / "labels.json"), "--json"]
    found = json.loads(printed("evaluate", "--workdir", shared / "data" / file, *labels))
    assert found["count"] == 32
    assert round(found["top1"] * 32) == hits


def test_convert_writes_what_load_reads_and_says_what_it_did(shared, tmp_path, printed):
    source = shared / "fixtures/vitjax_cls/ckpt.npz"
    target = tmp_path / "out.safetensors"
    arguments = [str(source), str(target), "--layout", "timm", "--image-size", "32,56", "--check"]
    said = printed("convert", *arguments)
    assert "resized: encoder/position (1, 17, 48) -> (1, 29, 48)" in said
    assert target.stat().st_size > 100_000


def test_convert_resizes_positions_in_the_way_that_is_named(shared, tmp_path, refused) -> None:
    source = shared / "fixtures/vitjax_cls/ckpt.npz"
    tables = []
    for method in ("align_corners", "bicubic"):
        target = tmp_path / f"{method}.npz"
        arguments = [str(source), str(target), "--image-size", "48", "--resize", method]
        assert cli.run("convert", *arguments) == 0
        tables.append(np.load(target)["Transformer/posembed_input/pos_embedding"])
    assert np.abs(tables[0] - tables[1]).max() > 0.01
    said = refused("convert", source, tmp_path / "out.npz", "--resize", "best")
    assert "unknown interpolation 'best'" in said
    assert not (tmp_path / "out.npz").exists()


def test_convert_refuses_in_one_line_and_writes_nothing(tmp_path, refused):
    (tmp_path / "text.npz").write_text("no checkpoint")
    refused("convert", tmp_path / "text.npz", tmp_path / "out.npz", folder=tmp_path)
    assert not (tmp_path / "out.npz").exists()


def test_labels_are_for_images(tmp_path, refused):
    (tmp_path / "labels.json").write_text("{}")
    said = refused("evaluate", "--workdir", tmp_path, "--labels", tmp_path / "labels.json")
    assert "--labels and --real are for the images of a folder: give --images too" in said
