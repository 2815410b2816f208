"""Sentence encoder: parity with BERT, padding, tokenizer."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from seem.model.sentence_encoder import SentenceEncoder, SentenceEncoderConfig, checkpoint_filter

TINY = SentenceEncoderConfig(vocabulary=40, width=12, depth=2, heads=3, hidden=20, max_tokens=8)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "dog", "on", "left", "tr", "##uck", "##s", ",", "cafe"]


def tiny(seed: int = 0) -> SentenceEncoder:
    torch.manual_seed(seed)
    return SentenceEncoder(TINY, tokenizer_json()).eval()


def tokenizer_json() -> str:
    """A WordPiece tokenizer as the published one: lower case, accents stripped, always padded to 128."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    return str(tokenizer.to_str())


def bert_state_dict() -> dict[str, Tensor]:
    """Weights by formula under BERT's names, 10 positions: value i of the k-th name in order is 0.3 sin(1.7 i + k)."""
    width, hidden = TINY.width, TINY.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (TINY.vocabulary, width),
        "embeddings.position_embeddings.weight": (10, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for i in range(TINY.depth):
        layer = f"encoder.layer.{i}"
        for name, out, into in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", hidden, width),
            ("output.dense", width, hidden),
        ):
            shapes |= {f"{layer}.{name}.weight": (out, into), f"{layer}.{name}.bias": (out,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)}
    state = {}
    for k, name in enumerate(sorted(shapes)):
        size = torch.Size(shapes[name])
        values = 0.3 * torch.sin(torch.arange(size.numel(), dtype=torch.float64) * 1.7 + k).view(size)
        state[name] = (values + 1 if name.endswith("LayerNorm.weight") else values).float()
    return state


def test_equals_bert() -> None:
    """Expected numbers: transformers 5.23 BertModel (float64, exact GELU, eps 1e-12) with ``bert_state_dict``."""
    model = tiny()
    model.load_state_dict(checkpoint_filter(bert_state_dict(), TINY))
    ids = torch.tensor([[1, 7, 21, 33, 2], [1, 9, 2, 0, 0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with torch.no_grad():
        tokens, sentence = model(ids, mask)
    expected_sentence = [
        [
            0.357909,
            -0.351457,
            0.172159,
            0.233172,
            -0.157067,
            0.014798,
            -0.240485,
            0.46923,
            -0.139423,
            -0.227863,
            0.496053,
            -0.209865,
        ],
        [
            -0.19011,
            -0.194638,
            0.46761,
            -0.404881,
            0.136797,
            -0.241283,
            0.373765,
            0.102287,
            -0.454453,
            0.215445,
            0.251595,
            0.006958,
        ],
    ]
    expected_tokens = [
        [0.799561, -1.337184, 1.280481, 0.381915, -0.330783, -0.116805],
        [-0.877081, -0.526934, 1.353355, -0.983697, 0.308592, -0.732975],
    ]
    torch.testing.assert_close(sentence, torch.tensor(expected_sentence), rtol=0, atol=5e-6)
    found = torch.stack([tokens[0, 3, :6], tokens[1, 2, :6]])
    torch.testing.assert_close(found, torch.tensor(expected_tokens), rtol=0, atol=5e-6)


def test_shapes_and_unit_length() -> None:
    tokens, mask, sentence = tiny().encode(["the dog", "dog on the left, the trucks"])
    assert tokens.shape == (2, 8, 12) and mask.shape == (2, 8) and sentence.shape == (2, 12)
    torch.testing.assert_close(sentence.norm(dim=1), torch.ones(2))


def test_padding_does_not_change_a_sentence() -> None:
    model = tiny()
    with torch.no_grad():
        _, _, together = model.encode(["dog", "dog on the left, the trucks"])
        _, _, alone = model.encode(["dog"])
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dog", ["dog"]),
        ("The DOG, left", ["the", "dog", ",", "left"]),
        ("trucks", ["tr", "##uck", "##s"]),
        ("Café", ["cafe"]),
        ("zebra", ["[UNK]"]),
        ("dog " * 50, ["dog"] * 6),  # cut to 8 tokens with both ends
    ],
)
def test_tokenize(text: str, words: list[str]) -> None:
    ids, mask = tiny().tokenize([text])
    assert ids.tolist() == [[WORDS.index(word) for word in ["[CLS]", *words, "[SEP]"]]]
    assert ids.dtype == torch.long and mask.dtype == torch.bool and bool(mask.all())


def test_tokenize_pads_to_the_longest_text() -> None:
    ids, mask = tiny().tokenize(["dog", "the dog"])
    assert ids.shape == (2, 4)
    assert mask.tolist() == [[True, True, True, False], [True] * 4]
    assert ids[0, 3] == 0


def test_no_text_gives_no_rows() -> None:
    tokens, mask, sentence = tiny().encode([])
    assert tokens.shape[0] == mask.shape[0] == 0 and sentence.shape == (0, 12)


def test_errors() -> None:
    with pytest.raises(TypeError, match="texts must be a sequence of strings, got one string 'dog'"):
        tiny().tokenize("dog")
    with pytest.raises(RuntimeError, match="tokenizer_json"):
        SentenceEncoder(TINY).tokenize(["dog"])


def test_backward_reaches_every_parameter() -> None:
    model = tiny().train()
    ids, mask = model.tokenize(["the dog", "trucks on the left"])
    tokens, sentence = model(ids, mask)
    (tokens[mask].square().mean() + sentence[:, 0].sum()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing


def test_save_load_and_copy(tmp_path: Path) -> None:
    model = tiny()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = tiny(seed=1)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    texts = ["the dog", "trucks"]
    with torch.no_grad():
        expected = model.encode(texts)[2]
        assert torch.equal(expected, model.encode(texts)[2])
        assert torch.equal(expected, other.encode(texts)[2])
        assert torch.equal(expected, copy.deepcopy(model).encode(texts)[2])  # the tokenizer was built by now


def test_checkpoint_filter_keeps_own_names() -> None:
    state = tiny().state_dict()
    assert checkpoint_filter(state).keys() == state.keys()


def test_full_size() -> None:
    with torch.device("meta"):
        model = SentenceEncoder()
        tokens, sentence = model(torch.ones(2, 64, dtype=torch.long), torch.ones(2, 64, dtype=torch.bool))
    assert sum(p.numel() for p in model.parameters()) == 22_392_576
    assert tokens.shape == (2, 64, 384) and sentence.shape == (2, 384)


@pytest.mark.skipif("SEEM_MINILM" not in os.environ, reason="set SEEM_MINILM to the archive of the published weights")
def test_equals_the_published_model() -> None:
    from seem.checkpoints.sources import SOURCES, read_source, read_tokenizer

    archive = os.environ["SEEM_MINILM"]
    model = SentenceEncoder(tokenizer_json=read_tokenizer(archive)).eval()
    model.load_state_dict(checkpoint_filter(load(read_source(SOURCES["text"], archive))))
    recorded = json.loads((Path(__file__).parents[1] / "fixtures" / "minilm_expected.json").read_text())
    ids, mask = model.tokenize(recorded["texts"])
    assert [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)] == recorded["ids"]
    with torch.no_grad():
        sentence = model(ids, mask)[1]
    torch.testing.assert_close(sentence[:, :8], torch.tensor(recorded["sentence_first_8"]), rtol=0, atol=1e-5)


def test_tokenizers_is_not_needed_for_token_ids() -> None:
    program = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "import torch\n"
        "from seem.model.sentence_encoder import SentenceEncoder, SentenceEncoderConfig\n"
        "model = SentenceEncoder(SentenceEncoderConfig(vocabulary=9, width=4, depth=1, heads=2, hidden=8))\n"
        "print(tuple(model(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool))[1].shape))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "(1, 4)"), result.stderr
