"""`models`: the table of the zoo, and what selects its rows."""

import json

import pytest

from vit_jax.models import origins, zoo

HEADER = "model width depth mlp heads tokens parameters GFLOPs pixels arXiv weights"


def test_models_lists_the_zoo_with_parameters_cost_paper_and_licence(printed, monkeypatch) -> None:
    """Of a few families: tracing all of them takes long."""
    names = ["B/16", "e/14", "R50+L/32", "MAE-pretrain-L/16", "Swin-T", "ResNet-50"]
    monkeypatch.setattr(zoo, "names", lambda: names)
    header, *rows = (line.split() for line in printed("models").splitlines())
    assert header == HEADER.split()
    table = {row[0]: row for row in rows}
    assert table["B/16"][1:7] == ["768", "12", "3072", "12", "197", "86,567,656"]
    assert table["B/16"][7:] == ["35.1", "224x224", "2010.11929", "Apache-2.0"]
    assert table["ResNet-50"][6] == "25,557,032"  # torchvision's, without running averages
    assert list(table) == names


def test_a_family_or_a_part_of_a_name_selects_rows(printed) -> None:
    def selected(*arguments: str) -> list[str]:
        lines = printed("models", "--json", *arguments).splitlines()
        return [json.loads(line)["model"] for line in lines]

    assert selected("--family", "regnet") == ["RegNetY-160"]
    assert selected("distilled-s") == ["DeiT-distilled-S/16"]
    assert selected("B/8") == ["B/8"]


def test_json_has_numbers_and_null_for_what_is_unknown(printed) -> None:
    found = json.loads(printed("models", "R26+B/32", "--json"))
    assert (found["parameters"], found["image_size"]) == (101383976, [224, 224])
    assert (found["family"], found["arxiv"], found["weights"]) == ("hybrid", None, None)


def test_a_name_of_another_library_shows_the_model_it_stands_for(printed) -> None:
    first, _, row = printed("models", "vit_tiny_patch16_384").splitlines()
    assert first == "vit_tiny_patch16_384 is Ti/16 with activation='gelu_erf', as in timm"
    assert row.split()[:8] == ["Ti/16", "192", "12", "768", "3", "577", "5,790,376", "9.4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_base_patch16_clip_224"], "unknown model 'vit_base_patch16_clip_224': did you mean"),
        (["--family", "rasnet"], "no family 'rasnet': did you mean 'resnet'?"),
        (["swin", "--family", "vit"], "no model of the family 'vit' has 'swin' in its name"),
    ],
)
def test_a_selection_without_models_is_refused(refused, arguments, message) -> None:
    assert message in refused("models", *arguments)


def test_every_published_name_has_a_kind_and_all_but_one_a_paper() -> None:
    found = {name: origins.origin(name) for name in zoo.names()}
    assert [name for name, origin in found.items() if not origin.paper] == ["R26+B/32"]
    assert {origin.kind for origin in found.values()} == {
        *("vit", "hybrid", "deit", "mae", "beit", "bit", "swin", "regnet", "resnet", "dvae")
    }
