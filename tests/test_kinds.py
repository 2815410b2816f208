"""Other words for what the model knows, and kinds of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import seem
from benchmarks.make_kinds import candidates, choose, known_synsets, read_wordnet
from seem.kinds import GROUPS, kind_of, members_of
from seem.model.seem import SEEM
from seem.predict.instances import match_probabilities
from seem.vocabulary import COCO_PANOPTIC_NAMES


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("automobile", ("car", False)),
        ("Puppy", ("dog", False)),
        ("a puppy", ("dog", False)),
        ("the  puppies", ("dog", False)),
        ("lorries", ("truck", False)),
        ("rucksack", ("backpack", False)),
        ("kitten", ("cat", False)),  # WordNet knows it as a young mammal only
        ("women", ("person", False)),
        ("the police officers", ("person", False)),
        ("sofa", ("couch", True)),  # its data have both words
        ("dog", None),
        ("dogs", None),
        ("a red sofa", None),
        ("skis", None),  # a name, though "ski" is another word for it
        ("ski", ("skis", False)),
        ("xylem", None),
        ("", None),
    ],
)
def test_kind_of(phrase: str, expected: tuple[str, bool] | None) -> None:
    assert kind_of(phrase) == expected


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("pets", ("cat", "dog")),
        ("a vegetable", ("broccoli", "carrot")),
        ("table", ("dining table",)),
        ("wall", ("brick wall", "stone wall", "tiled wall", "wooden wall")),
        ("dog", ()),  # a hot dog is none
        ("bears", ()),
        ("xylem", ()),
    ],
)
def test_members_of(phrase: str, expected: tuple[str, ...]) -> None:
    assert members_of(phrase) == expected


def test_every_member_is_a_name_that_the_model_knows() -> None:
    assert {name for names in GROUPS.values() for name in names.split(", ")} <= set(COCO_PANOPTIC_NAMES)


@pytest.fixture(scope="module")
def network() -> SEEM:
    found = seem.load("seem-tiny", device="cpu").network
    assert isinstance(found, SEEM)
    return found


@torch.no_grad()
def test_another_word_leans_on_the_name_and_no_other_word_does(network: SEEM) -> None:
    def likeness(word: str, name: str) -> float:
        a, b = (sentence for sentence, _ in network.raw_text([word, name]))
        return float(torch.cosine_similarity(a, b, dim=0))

    def alone(word: str) -> torch.Tensor:
        return network.text_encoder(*network.text_encoder.tokenize([word]))[1][0]

    halfway = (alone("puppy") + alone("dog")) / 2
    assert torch.allclose(network.raw_text(["puppy"])[0][0], halfway, atol=1e-6)
    assert likeness("puppy", "dog") > float(torch.cosine_similarity(alone("puppy"), alone("dog"), dim=0))
    for word in ("sofa", "dog", "xylem"):  # learned as they are, or unknown
        assert torch.allclose(network.raw_text([word])[0][0], alone(word), atol=1e-6)


@torch.no_grad()
def test_a_name_is_no_evidence_against_its_other_word(network: SEEM) -> None:
    """A region that looks like a couch through and through is a sofa too, but no zebra."""
    couch = network.encode_text(["couch"]).sentence
    sofa, loveseat, zebra = (
        float(match_probabilities(network, couch, [word])[0, 0]) for word in ("sofa", "loveseat", "zebra")
    )
    assert sofa > 0.9 and loveseat > 0.9 and zebra < 0.1


@torch.no_grad()
def test_a_word_above_several_names_is_as_likely_as_they_are_together(network: SEEM) -> None:
    """What looks like a cat through and through is an animal and a pet, and no vehicle; the rest is something else."""
    cat = network.encode_text(["cat"]).sentence
    found = match_probabilities(network, cat, ["animal", "vehicle", "couch"])[0]
    assert float(found[0]) > 0.9 and float(found[1]) < 0.1
    assert float(found.sum()) == pytest.approx(1, abs=1e-5) and float(found[-1]) < 0.1
    both = match_probabilities(network, cat, ["animal", "cat"])[0]  # who asks for both is told the nearer name
    assert float(both[1]) > float(both[0])


WORDNET = {
    "index.noun": """\
  1 a line of the licence
car n 1 1 @ 1 1 00000010
auto n 1 1 @ 1 1 00000010
coupe n 1 1 @ 1 1 00000020
wagon n 2 1 @ 2 1 00000040 00000020
rome n 1 1 @ 1 1 00000050
""",
    "data.noun": """\
  1 a line of the licence
00000010 06 n 02 car 0 auto 0 001 @ 00000030 n 0000 | a motor vehicle
00000020 06 n 02 coupe 0 wagon 0 001 @ 00000010 n 0000 | a car
00000030 06 n 01 vehicle 0 000 | a conveyance
00000040 06 n 01 wagon 0 001 @ 00000030 n 0000 | no car
00000050 06 n 01 Rome 0 001 @i 00000010 n 0000 | as if a city were a car
""",
}


def test_a_word_that_wordnet_has_elsewhere_goes_to_a_name_of_its_sort(network: SEEM, tmp_path: Path) -> None:
    (tmp_path / "index.noun").write_text(
        "cat n 1 1 @ 1 1 00000010\nkitten n 1 1 @ 1 1 00000020\n"
        "kitty n 1 1 @ 1 1 00000030\ncatfish n 1 1 @ 1 1 00000020\n"
    )
    (tmp_path / "data.noun").write_text(
        "00000010 05 n 01 cat 0 000 | a cat\n00000020 05 n 02 kitten 0 catfish 0 000 | a young mammal\n"
        "00000030 21 n 01 kitty 0 000 | a sum of money\n"
    )
    net = read_wordnet(tmp_path)
    assert candidates(net) == {}
    assert choose(network, net, {}, set()) == {"kitten": "cat"}  # not money, and not what is made of the name


def test_words_come_from_wordnets_files(tmp_path: Path) -> None:
    for name, text in WORDNET.items():
        (tmp_path / name).write_text(text)
    net = read_wordnet(tmp_path)
    assert known_synsets(net) == {10: "car"}
    assert candidates(net) == {"auto": [(0, "car")], "coupe": [(0, "car")], "wagon": [(1, "car")]}
