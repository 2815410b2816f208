"""The official SEEM network: image encoder, pixel decoder, text encoder and prompt decoder (SPEC section 1).

It answers the same calls as ``seem.model.seem.SEEM``, so whatever holds a network can hold this one.

By default nothing is random and padding is not attended. Every object is a batch row of its own, so several objects
in one call give what each gives alone; v1's way of packing objects into one row, with random queries and memories, is
there for parity only (``official_quirks=True`` and ``OfficialDecoder``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.attention_rules import GROUNDING, OBJECT, SPATIAL, TEXT_TO_SPATIAL, VISUAL_TO_GROUNDING
from seem.model.clip_text_encoder import ClipTextEncoder, unit
from seem.model.config import ImageConfig
from seem.model.deformable_pixel_decoder import DeformablePixelDecoder, DeformablePixelDecoderConfig
from seem.model.fpn_pixel_decoder import FPNPixelDecoder
from seem.model.image_encoder.davit import DaViT, DaViTConfig
from seem.model.image_encoder.focalnet import FocalNet, FocalNetConfig
from seem.model.image_encoder.sam_vit import SamViT
from seem.model.official_config import ImageEncoderConfig, OfficialConfig
from seem.model.official_decoder import DecoderPrompts, OfficialDecoder, PreparedImage, mask_logits
from seem.model.official_postprocess import mean_probability
from seem.model.official_visual_sampler import (
    Draws,
    EvenDraws,
    OfficialDraws,
    Strokes,
    VisualTokens,
    join_tokens,
    rasterise,
    read_at,
    stack_tokens,
)
from seem.model.prompting import EncodedReference, ObjectPrompt, ReferencePrompt, VisualPrompt
from seem.model.seem import Decoded, ObjectQueries, PanopticRule, TextFeatures

CANDIDATES = 3  # masks per object, best match first: v1's number of queries per prompt
PROPOSALS = 10  # queries that listened to a phrase, which `propose` adds to the object queries
TEXT_CACHE = 4096
BACKGROUND = "background"  # the class that means "nothing of these"


@dataclass(eq=False)
class OfficialFeatures:
    """One encoded image.

    Attributes:
        mask_features: (1, C, H/4, W/4) of the padded image.
        maps: three maps (1, C, h, w) at strides 32, 16, 8.
        prepared: what every decode reads, projected once.
        size: (h, w) encoded and unpadded.
    """

    mask_features: Tensor
    maps: tuple[Tensor, ...]
    prepared: PreparedImage
    size: tuple[int, int]
    objects: ObjectQueries | None = None  # of the prompt-free decode, once it has run

    @property
    def mask_size(self) -> tuple[int, int]:
        """Size of mask logits: stride 4 of the unpadded image."""
        return -(-self.size[0] // 4), -(-self.size[1] // 4)

    def to_tensors(self) -> dict[str, Tensor]:
        """What is saved or sent: every map in int8, and a scale for each of its channels."""
        tensors = {}
        maps = {f"map{i}": values for i, values in enumerate(self.maps)}
        for name, values in {"mask_features": self.mask_features, **maps}.items():
            scale = values.detach().float().abs().amax((0, 2, 3)) / 127
            steps = values / scale.clamp(min=1e-30)[:, None, None]
            tensors[name] = steps.round().to(torch.int8).cpu().contiguous()
            tensors[f"{name}.scale"] = scale.cpu()
        return tensors

    @staticmethod
    def from_tensors(network: OfficialSEEM, tensors: dict[str, Tensor], size: tuple[int, int]) -> OfficialFeatures:
        """Inverse of ``to_tensors``; raises ValueError for missing, extra or misshapen tensors."""
        h, w = padded_size(size, network.config.image)
        dim = network.config.prompt_decoder.dim
        strides = {"mask_features": 4, "map0": 32, "map1": 16, "map2": 8}
        wanted: dict[str, tuple[int, ...]] = {
            name: (1, dim, h // stride, w // stride) for name, stride in strides.items()
        }
        wanted |= {f"{name}.scale": (dim,) for name in strides}
        if set(tensors) != set(wanted):
            raise ValueError(f"scene tensors are {sorted(tensors)}; expected {sorted(wanted)}")
        for name, shape in wanted.items():
            tensor, dtype = tensors[name], torch.float32 if name.endswith("scale") else torch.int8
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                got = f"shape {tuple(tensor.shape)} and {tensor.dtype}"
                raise ValueError(f"scene tensor {name} has {got}; expected {shape} and {dtype}")
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"scene tensor {name} is not finite")
        mask_features, *maps = (
            tensors[name].to(network.device) * tensors[f"{name}.scale"].to(network.device)[:, None, None]
            for name in strides
        )
        return network.project(mask_features, maps, size)


class OfficialSEEM(nn.Module):
    """The network of one variant; ``OFFICIAL_VARIANTS`` has the configurations.

    Args:
        official_quirks: take the official random draws (points beyond 512, v1's queries and memories, from
            PyTorch's generator) and let padding be attended, as their code does.

    Attributes:
        known_names: the classes that the weights were trained on, and how their training spelt them. Given, a query's
            score is how likely it shows any of them rather than "background".
        classes: encoded class names by their spelling.
        on_new_classes: called after ``classes`` grew.
    """

    features_type = OfficialFeatures
    synonym_similarity = 0.95  # cosine from which two names mean the same; all names lie close together in this space

    def __init__(self, config: OfficialConfig, official_quirks: bool = False) -> None:
        super().__init__()
        self.config = config
        self.official_quirks = official_quirks
        self.image_encoder = build_image_encoder(config.image_encoder)
        channels = self.image_encoder.channels
        self.pixel_decoder: FPNPixelDecoder | DeformablePixelDecoder
        if isinstance(config.pixel_decoder, DeformablePixelDecoderConfig):
            self.pixel_decoder = DeformablePixelDecoder(channels, config.pixel_decoder)
        else:
            self.pixel_decoder = FPNPixelDecoder(channels, config.pixel_decoder)
        self.text_encoder = ClipTextEncoder(config.text_encoder)
        self.decoder = OfficialDecoder(config.prompt_decoder, config.semantics)
        self._texts: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self.known_names: Mapping[str, str] = {}
        self.classes: dict[str, Tensor] = {}
        self.on_new_classes: Callable[[], None] | None = None

    @property
    def device(self) -> torch.device:
        return self.text_encoder.logit_scale.device

    @property
    def panoptic_rule(self) -> PanopticRule:
        """SPEC section 13."""
        return PanopticRule(self.config.semantics.object_threshold, overlap=0.8)

    def _draws(self) -> Draws:
        if self.official_quirks:
            return OfficialDraws(per_prompt=self.config.semantics.queries_per_prompt is not None)
        return EvenDraws()

    # ---- image ----------------------------------------------------------------------------------------------------

    def encode_image(self, pixels: Tensor, size: tuple[int, int]) -> OfficialFeatures:
        """(1, 3, H, W) normalised and padded; ``size`` is the unpadded (h, w)."""
        mask_features, maps = self.pixel_decoder(self.image_encoder(pixels))
        return self.project(mask_features, maps, size)

    def project(self, mask_features: Tensor, maps: Sequence[Tensor], size: tuple[int, int]) -> OfficialFeatures:
        """What every prompt reads, computed once."""
        prepared = self.decoder.prepare(mask_features, maps, None if self.official_quirks else size)
        return OfficialFeatures(prepared.mask_features, tuple(maps), prepared, size)

    # ---- text -----------------------------------------------------------------------------------------------------

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Phrases -> joint space; results are kept (LRU).

        The sentence is what regions are compared with, so it is made as for a class name, from the 81 templates. What
        a text prompt says to the decoder are the tokens.
        """
        rows = [self._text(text) for text in texts]
        tokens = nn.utils.rnn.pad_sequence([t for _, t in rows], batch_first=True)
        lengths = torch.tensor([len(t) for _, t in rows], device=tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return TextFeatures(self.class_table(texts, background=False), tokens, mask)

    def _text(self, text: str) -> tuple[Tensor, Tensor]:
        """Sentence (D,) of length 1 and the tokens (T, D) of one phrase."""
        if text not in self._texts:
            sentences, tokens, mask = self.text_encoder.encode([text])
            self._texts[text] = (unit(sentences[0]), tokens[0][mask[0]])
            if len(self._texts) > TEXT_CACHE:
                self._texts.popitem(last=False)
        self._texts.move_to_end(text)
        return self._texts[text]

    def class_table(self, names: Sequence[str], background: bool = True) -> Tensor:
        """Class names through the 81 templates -> (K, D), or (K + 1, D) with "nothing of these" last; kept."""
        spelt = [self.known_names.get(name, name) for name in names]
        wanted = [*spelt, BACKGROUND] if background else spelt
        missing = [name for name in dict.fromkeys(wanted) if name not in self.classes]
        for name in missing:
            self.classes[name] = self.text_encoder.encode_classes([name])[0]
        if missing and self.on_new_classes is not None:
            self.on_new_classes()
        table = torch.stack([self.classes[name] for name in wanted]).to(self.device)
        if len(self.classes) > TEXT_CACHE:
            kept = {*self.known_names.values(), BACKGROUND}
            for name in set(self.classes) - kept:
                self.classes.pop(name, None)
        return table

    def class_logits(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """(…, D) x (K, D) -> (…, K), at the learned temperature."""
        return self.text_encoder.logit_scale.exp() * unit(embeddings) @ text.T

    # ---- prompts --------------------------------------------------------------------------------------------------

    def decode(self, features: OfficialFeatures, objects: Sequence[ObjectPrompt]) -> Decoded:
        """N objects -> their best three masks each, best first. Objects with prompts of one kind share a pass."""
        kinds: dict[tuple[bool, bool, bool, bool], list[int]] = {}
        for i, item in enumerate(objects):
            memory = item.previous is not None and self.config.semantics.memory
            shown = bool(item.references) or item.previous is not None or any(p.positive for p in item.visual)
            kinds.setdefault((shown, bool(item.visual) or shown, bool(item.texts), memory), []).append(i)
        rows: list[tuple[Tensor, Tensor] | None] = [None] * len(objects)
        for kind, members in kinds.items():
            found = self._decode_alike(features, [objects[i] for i in members], *kind)
            for row, i in enumerate(members):
                rows[i] = (found[0][row], found[1][row])
        logits = torch.stack([r[0] for r in rows if r is not None])  # (N, S, h, w)
        embeddings = torch.stack([r[1] for r in rows if r is not None])  # (N, S, D)
        selected = torch.zeros(len(objects), dtype=torch.long, device=logits.device)
        return Decoded(logits, mean_probability(logits), embeddings, selected, "mean_probability")

    def _decode_alike(
        self,
        features: OfficialFeatures,
        objects: Sequence[ObjectPrompt],
        shown: bool,
        visual: bool,
        text: bool,
        memory: bool,
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (N, S, h, w) and class embeddings (N, S, D) of objects whose prompts are of the same kinds.

        An object is ``shown`` if something visual says what it is. A text whose visual prompts only say what it is
        not stays a matter of the grounding queries, which then see those prompts too.
        """
        semantics, draws = self.config.semantics, self._draws()
        own = reference = joined = previous = None
        if visual:
            own_rows = [self._read(features, item.visual, draws) for item in objects]
            reference_rows = [[self._read_reference(r, draws) for r in item.references] for item in objects]
            if shown:
                targets = torch.stack(
                    [self._target(features, *parts) for parts in zip(objects, own_rows, reference_rows, strict=True)]
                )
            if semantics.joint:
                own = stack_tokens(own_rows)
                if any(reference_rows):
                    reference = stack_tokens([join_tokens(r) if r else own_rows[0].empty() for r in reference_rows])
            else:
                joined = [join_tokens([o, *r]) for o, r in zip(own_rows, reference_rows, strict=True)]
                own = stack_tokens(joined)
        if memory:
            previous = torch.stack([self._padded_mask(features, item.previous) for item in objects])
        tokens = padding = None
        if text:
            phrases = [torch.cat([self._text(t)[1] for t in item.texts]) for item in objects]
            tokens = nn.utils.rnn.pad_sequence(phrases, batch_first=True)
            lengths = torch.tensor([len(p) for p in phrases], device=tokens.device)
            padding = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
        prompts = DecoderPrompts(tokens, padding, visual=own, reference=reference, previous=previous)
        groups = [OBJECT] if semantics.joint else [GROUNDING] * text + [SPATIAL] * shown
        links = []
        if text and visual and not semantics.joint:
            links = [TEXT_TO_SPATIAL] if shown else [VISUAL_TO_GROUNDING]
        out = self.decoder(features.prepared, prompts, draws, groups, len(objects), links)
        chooser = groups[-1]  # the spatial queries if there are any: a stroke outranks a text
        if shown:
            compared = out.class_embeddings if semantics.joint_matching else out.mask_embeddings
            match = (compared[chooser] @ targets[:, :, None])[..., 0]  # (N, Q)
        else:
            sentences = torch.stack([torch.stack([self._text(t)[0] for t in o.texts]).mean(0) for o in objects])
            match = (unit(out.class_embeddings[chooser]) @ unit(sentences)[:, :, None])[..., 0]
        best = match.topk(min(CANDIDATES, match.shape[1])).indices[:, :, None]
        mask_embeddings = out.mask_embeddings[chooser].take_along_dim(best, 1)
        class_embeddings = out.class_embeddings[chooser].take_along_dim(best, 1)
        h, w = features.mask_size
        logits = mask_logits(mask_embeddings, features.mask_features)[..., :h, :w].float()
        return logits, unit(class_embeddings.float())

    def _read(self, features: OfficialFeatures, prompts: Sequence[VisualPrompt], draws: Draws) -> VisualTokens:
        """The tokens of one object's visual prompts on their image."""
        h, w = (4 * n for n in features.mask_features.shape[-2:])
        stacks = []
        for positive in (True, False):
            mask = torch.from_numpy(rasterise(prompts, features.size, positive)).to(self.device)
            stacks.append(F.pad(mask, (0, w - mask.shape[1], 0, h - mask.shape[0]))[None])
        return self.decoder.read_prompts(features.prepared, [Strokes(*stacks)], draws)

    def _read_reference(self, reference: ReferencePrompt | EncodedReference, draws: Draws) -> VisualTokens:
        features: object = getattr(reference, "features", reference)
        if not isinstance(reference, ReferencePrompt) or not isinstance(features, OfficialFeatures):
            raise TypeError(f"a reference must be encoded by the same model, got {type(features).__name__}")
        return self._read(features, reference.prompts, draws)

    def _target(
        self, features: OfficialFeatures, item: ObjectPrompt, own: VisualTokens, references: Sequence[VisualTokens]
    ) -> Tensor:
        """What the chosen query's mask embedding must be like, (C,): the mean feature under the positive prompts, else
        of the reference, else inside the previous mask."""
        if any(p.positive for p in item.visual):
            return own.positive[0, 0]
        if references:
            return torch.stack([r.positive[0, 0] for r in references]).mean(0)
        assert item.previous is not None
        inside = (self._padded_mask(features, item.previous) > 0).nonzero()[:, 1:]
        if not len(inside):
            return own.positive[0, 0]
        size = torch.tensor(features.mask_features.shape[-2:], device=inside.device)
        return read_at(features.mask_features, (inside / (size - 1).clamp(min=1))[None])[0].mean(0)

    def _padded_mask(self, features: OfficialFeatures, previous: Tensor | None) -> Tensor:
        """Mask logits (h/4, w/4) -> (1, H/4, W/4), far outside where there is padding."""
        assert previous is not None
        h, w = features.mask_features.shape[-2:]
        mask = previous.to(self.device, torch.float32)
        return F.pad(mask, (0, w - mask.shape[1], 0, h - mask.shape[0]), value=-10.0)[None]

    # ---- without prompts ------------------------------------------------------------------------------------------

    def decode_objects(self, features: OfficialFeatures) -> ObjectQueries:
        """Every object query of the image, computed once and kept with the features.

        With ``known_names`` the score is 1 - P(background), so that times the probability of a known name among the
        known names it is that class's official probability.
        """
        found = self._objects(features)
        return replace(found, scores=self._objectness(found.embeddings)) if self.known_names else found

    closer_look = None

    def regions(self, features: OfficialFeatures) -> ObjectQueries:
        """What panoptic segmentation chooses from."""
        return self.decode_objects(features)

    def _objectness(self, embeddings: Tensor, phrase: str | None = None) -> Tensor:
        """(Q, D) -> (Q,): how likely each query shows a known class, or what the phrase names."""
        table = self.class_table([*self.known_names, *([phrase] if phrase else [])])
        return 1 - self.class_logits(embeddings, table).softmax(-1)[:, -1]

    def _objects(self, features: OfficialFeatures) -> ObjectQueries:
        if features.objects is None:
            out = self.decoder(features.prepared, DecoderPrompts(), self._draws(), [OBJECT], 1)
            h, w = features.mask_size
            logits = mask_logits(out.mask_embeddings[OBJECT], features.mask_features)[0, :, :h, :w].float()
            embeddings = unit(out.class_embeddings[OBJECT][0].float())
            features.objects = ObjectQueries(logits, embeddings, mean_probability(logits))
        return features.objects

    def embed_masks(self, features: OfficialFeatures, masks: Tensor) -> Tensor:
        """Any masks (N, h/4, w/4) in 0..1 -> (N, D): the class embedding of the object query that overlaps most."""
        objects = self._objects(features)
        theirs = objects.logits.sigmoid().flatten(1)  # (Q, h/4 * w/4)
        best = []
        for mask in masks.to(theirs).flatten(1):
            overlap = torch.minimum(mask, theirs).sum(1) / torch.maximum(mask, theirs).sum(1).clamp(min=1e-6)
            best.append(int(overlap.argmax()))
        return objects.embeddings[best]

    def propose(self, features: OfficialFeatures, phrase: str) -> ObjectQueries:
        """Regions that a phrase may name: the object queries, and the queries that listened to it and fit it best.

        Scores are the official ones of instances: class probability times mean probability inside the mask, less the
        name's own share, which whoever asks computes.
        """
        found = self._objects(features)
        sentence, tokens = self._text(phrase)
        group = OBJECT if self.config.semantics.joint else GROUNDING
        out = self.decoder(features.prepared, DecoderPrompts(tokens[None]), self._draws(), [group], 1)
        match = unit(out.class_embeddings[group][0]) @ sentence
        best = match.topk(min(PROPOSALS, len(match))).indices
        h, w = features.mask_size
        listened = mask_logits(out.mask_embeddings[group][:, best], features.mask_features)[0, :, :h, :w].float()
        logits = torch.cat([found.logits, listened])
        embeddings = torch.cat([found.embeddings, unit(out.class_embeddings[group][0, best].float())])
        scores = mean_probability(logits)
        return ObjectQueries(logits, embeddings, scores * self._objectness(embeddings, phrase))

    def semantic_regions(self, features: OfficialFeatures, text: Tensor) -> Tensor | None:
        """None: stuff is found by object queries, as things are."""
        return None


def build_image_encoder(config: ImageEncoderConfig) -> FocalNet | DaViT | SamViT:
    if isinstance(config, FocalNetConfig):
        return FocalNet(config)
    return DaViT(config) if isinstance(config, DaViTConfig) else SamViT(config)


def padded_size(size: tuple[int, int], config: ImageConfig) -> tuple[int, int]:
    """(H, W) of the canvas that an encoded image of that size is padded to."""
    if config.pad_to is not None:
        return config.pad_to, config.pad_to
    multiple = config.pad_multiple
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def normalise_image(image: Tensor, config: ImageConfig) -> Tensor:
    """(3, h, w) uint8 RGB, already resized -> (1, 3, H, W): normalised, then zero-padded right and bottom."""
    mean = torch.tensor(config.mean, device=image.device)[:, None, None]
    std = torch.tensor(config.std, device=image.device)[:, None, None]
    h, w = image.shape[-2:]
    height, width = padded_size((h, w), config)
    return F.pad((image.float() - mean) / std, (0, width - w, 0, height - h))[None]


def match_text(embeddings: Tensor, sentences: Tensor, logit_scale: Tensor) -> Tensor:
    """Class embeddings (B, Q, D) against sentences (N, D) -> (B, Q, N), the temperature capped at 100."""
    return logit_scale.exp().clamp(max=100) * unit(embeddings) @ unit(sentences).T
