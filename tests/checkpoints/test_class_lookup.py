"""A class is found by what people call it, and never another one: doubt is an error."""

import json

import pytest

from vit_jax.checkpoints import class_file, class_lookup, imagenet
from vit_jax.checkpoints.class_lookup import Lookup

UNNAMED = class_lookup.of_names((), count=1000)
OWN = class_lookup.of_names(("cat", "Dog", "sea lion", "7"), count=4)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("n01440764", "tench"),
        ("n01629819_European_fire_salamander", "European fire salamander"),
        ("tench, Tinca tinca", "tench"),
        ("Great_White_Shark", "great white shark"),
        ("fire truck", "fire engine"),
        ("0", "tench"),
        ("0999", "toilet tissue"),
        # These are words of other classes too.
        ("crayfish", "crayfish"),
        ("missile", "missile"),
        ("cardigan", "cardigan"),
        ("Cardigan", "Cardigan Welsh corgi"),
    ],
)
def test_imagenet_is_known_by_synset_word_and_number(text, name) -> None:
    assert UNNAMED.names[UNNAMED.find(text)] == name


def test_every_name_and_synset_finds_its_class() -> None:
    everyone = tuple(range(1000))
    assert UNNAMED.find_all(imagenet.synsets()) == everyone
    assert UNNAMED.find_all(imagenet.names()) == everyone
    hugging_face = tuple(", ".join(words) for words in imagenet.words())  # "crane" twice
    found = class_lookup.of_names(hugging_face, count=1000)
    assert found.find_all(imagenet.synsets()) == everyone
    assert found.names == hugging_face


def test_a_thousand_other_classes_are_not_those_of_imagenet() -> None:
    """Although many of them have the name and the number of one."""

    def renamed(count: int) -> Lookup:
        names = tuple(f"thing {i}" if i < count else n for i, n in enumerate(imagenet.names()))
        return class_lookup.of_names(names, count=1000)

    assert renamed(50).find("n01440764") == 0 and renamed(150).find("thing 7") == 7
    with pytest.raises(ValueError, match="n01440764"):
        renamed(150).find("n01440764")


@pytest.mark.parametrize(("text", "number"), [("Cat", 0), ("sea_lion", 2), ("7", 3), ("1", 1)])
def test_own_names_come_first(text, number) -> None:
    assert OWN.find(text) == number


@pytest.mark.parametrize(
    ("known", "texts", "said"),
    [
        (UNNAMED, ["crane"], r"'crane' may be crane \(bird\) \(134\) or crane \(machine\) \(517\)"),
        (UNNAMED, ["henn", "tench"], r"1 of 2 names .* 'henn' \(like 'hen' or 'hyena'\)"),
        (UNNAMED, ["tench", "n01440764"], "'tench' and 'n01440764' name the same class, 0"),
        (UNNAMED, ["1000"], "'1000'"),
        (OWN, ["n01440764"], "1 of 1 names are not of the model's 4 classes: 'n01440764'"),
        (class_lookup.of_names((), count=4), ["cat"], "4 classes, which have no names: 'cat'"),
        (class_lookup.of_names(("a", "b"), count=2, numbers=False), ["1"], "'1'"),
    ],
)
def test_doubt_is_an_error(known, texts, said) -> None:
    with pytest.raises(ValueError, match=said):
        known.find_all(texts)


@pytest.mark.parametrize(
    "content",
    [
        "tench\nhen\n",
        '["tench", "hen"]',
        '{"1": "hen", "0": "tench"}',
        '{"hen": 1, "tench": 0}',
        '{"0": ["n01440764", "tench"], "1": ["n01514859", "hen"]}',
    ],
)
def test_a_file_names_the_classes(tmp_path, content) -> None:
    (tmp_path / "classes").write_text(content)
    known = Lookup(class_file.read(tmp_path / "classes", count=2), count=2)
    assert known.names == ("tench", "hen")
    assert known.find("hen") == 1
    if "n015" in content:
        assert known.find("n01514859") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("tench\n", "names 1 classes, but the model has 2"),
        (json.dumps({"0": "a", "2": "b"}), "its numbers are not 0 to 1"),
        (json.dumps({"a": 1, "b": 1}), "its numbers are not 0 to 1"),
        (json.dumps({"a": "b", "1": "c"}), "'a' is not the number of a class"),
        (json.dumps(["a", 5]), "5 is not a name"),
        ("{", "it is not JSON"),
    ],
)
def test_a_file_that_does_not_is_refused(tmp_path, content, said) -> None:
    (tmp_path / "classes").write_text(content)
    with pytest.raises(ValueError, match=said):
        class_file.read(tmp_path / "classes", count=2)
