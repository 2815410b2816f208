"""One encoded image, and everything that can be asked of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seem.geometry import ImageGeometry
from seem.model.prompting import ObjectPrompt, ReferencePrompt
from seem.model.seem import ObjectQueries, encoded_masks, join_queries
from seem.predict import everything
from seem.predict.closer import look_closer, open_photo, pack_photo, see_phrase, see_regions, unpack_photo
from seem.predict.encoding import GIVEN_LOGIT, given_logits, object_prompt, visual_prompts
from seem.predict.instances import (
    DEFAULT_THRESHOLD,
    distinct,
    find_instances,
    label_probabilities,
    likeliest,
    likeness,
    match_phrase,
    match_probabilities,
)
from seem.predict.obey import obey
from seem.predict.panoptic import (
    STUFF_SCORE,
    Panoptic,
    assemble,
    name_regions,
    stuff_regions,
)
from seem.predict.places import choose, main_name, parse_place
from seem.predict.scene_files import make_features, read_header, read_tensors, write_scene
from seem.predict.segmentation import GivenSegmentation, Segmentation, read_only
from seem.predict.session import Session
from seem.prompts import MAX_PROMPTS, PROMPT_TYPES, Mask, Prompt, Reference, Text, check, is_positive
from seem.vocabulary import OTHERS, Category, VocabularyLike, parse_vocabulary

if TYPE_CHECKING:
    import os

    from seem.model.seem import SEEM, Decoded, ImageFeatures
    from seem.predict.model import Model

OBJECTS_PER_DECODE = 32  # bounds memory; more objects go in several passes
OUTLINED = 0.4  # predicted IoU from which a region may be an instance, with a closer look; development split
SAME_INSTANCE = 0.6  # IoU of regions from which `instances` takes them for one; development split
ALIKER = 1.5  # times as alike as the network's answer another region must be; development split
PLACE_SHARE = 0.4  # of the likeliest region's score, from which others are instances too; development split

Previous = Segmentation | np.ndarray


class Scene:
    """An image after `Model.encode`; immutable, and safe to use from several threads.

    Every method that returns a mask is deterministic: the same image and prompts give the same bits on one device.
    Coordinates are (x, y) in pixels of the original image.

    Attributes:
        digest: "sha256:…" of the image's pixels.
        weights: "sha256:…" of the model's weights; scenes of other weights are refused.
        geometry: the image's sizes.
    """

    def __init__(
        self,
        network: SEEM,
        features: ImageFeatures,
        sizes: ImageGeometry,
        digest: str,
        weights: str,
        photo: bytes | None = None,
    ) -> None:
        self._network = network
        self._features = features
        self._photo = photo  # of `keep_photo`: what a closer look sees
        self.geometry = sizes
        self.digest = digest
        self.weights = weights

    def __repr__(self) -> str:
        return f"<Scene {self.size[0]}x{self.size[1]} {self.digest[:15]}…>"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the original image."""
        return self.geometry.original

    # ---- prompted -------------------------------------------------------------------------------------------------

    def segment(
        self,
        *prompts: Prompt,
        previous: Previous | None = None,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
    ) -> Segmentation:
        """Segment one object.

        Args:
            prompts: any number and mix of prompts for one object; in a later round all prompts so far.
            previous: the result of the round before (or its `.logits`): the model reads it as memory.
            vocabulary: names that the label is chosen from; COCO's 133 by default.
            label: False leaves the label out, which saves a little time.

        Returns:
            The best mask. A text always gets one; look at its score, or use `find`, to know whether it is there.

        Raises:
            ValueError: no prompt, only negative ones without `previous`, or a prompt that does not fit the image.
            TypeError: something that is not a prompt.

        Example:
            >>> r = scene.segment(seem.Click(320, 200))                                             # doctest: +SKIP
            >>> r = scene.segment(seem.Click(320, 200), seem.Click(9, 12, positive=False), previous=r)
            ...                                                                                     # doctest: +SKIP
        """
        checked = self._check_object(prompts, previous, "")
        return self._segment([checked], vocabulary, label)[0]

    def segment_all(
        self,
        objects: Sequence[Sequence[Prompt]],
        previous: Sequence[Previous | None] | None = None,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
    ) -> list[Segmentation]:
        """Segment several objects in one decode; the same as `segment` on each, up to rounding.

        Args:
            objects: for each object its prompts.
            previous: for each object the result of its round before, or None.
            vocabulary, label: as in `segment`.

        Raises:
            ValueError, TypeError: as `segment`, with the object's number in the message; more than 1000 prompts.
        """
        check_list("objects", objects, "a list of lists of prompts")
        if previous is not None and len(previous) != len(objects):
            raise ValueError(f"previous: expected {len(objects)} results or None, got {len(previous)}")
        checked = []
        for i, prompts in enumerate(objects):
            check_list(f"objects[{i}]", prompts, "a list of prompts")
            checked.append(self._check_object(prompts, previous[i] if previous else None, f"objects[{i}]: "))
        total = sum(len(prompts) for prompts in objects)
        if total > MAX_PROMPTS:
            raise ValueError(f"objects: expected at most {MAX_PROMPTS} prompts in all, got {total}")
        return self._segment(checked, vocabulary, label)

    def candidates(self, *prompts: Prompt, previous: Previous | None = None) -> list[Segmentation]:
        """Every mask that the model holds possible for one object, such as its part and its whole, unlabelled.

        The order is the model's own: the same place means the same kind of answer for every prompt.
        """
        checked = self._check_object(prompts, previous, "")
        with torch.no_grad():
            decoded = self._network.decode(self._features, [checked])
        return [self._result(decoded, 0, s) for s in range(decoded.logits.shape[1])]

    def _vocabulary(self, vocabulary: VocabularyLike | None) -> tuple[Category, ...]:
        return find_vocabulary(self._network, vocabulary)

    def _segment(
        self, objects: Sequence[ObjectPrompt], vocabulary: VocabularyLike | None, label: bool
    ) -> list[Segmentation]:
        names = [category.name for category in self._vocabulary(vocabulary)] if label else None
        phrases = {n: item.texts[0] for n, item in enumerate(objects) if item.is_phrase}
        seen = phrases if self._looks_closer else {}  # answered by what a phrase points to, not by one decode
        with torch.no_grad():
            decoded = iter(self._decoded([item for n, item in enumerate(objects) if n not in seen], names))
            results = [self._pointed(seen[n], names) if n in seen else next(decoded) for n in range(len(objects))]
            for n, item in enumerate(objects):
                if n in phrases and n not in seen:
                    results[n] = self._phrase(phrases[n], results[n], names)
                elif item.is_reference and isinstance(reference := item.references[0], ReferencePrompt):
                    results[n] = self._alike(reference, results[n], names)
        return results

    def _decoded(self, objects: Sequence[ObjectPrompt], names: Sequence[str] | None) -> list[Segmentation]:
        """What the network makes of each object's prompts."""
        results: list[Segmentation] = []
        for start in range(0, len(objects), OBJECTS_PER_DECODE):
            decoded = self._network.decode(self._features, objects[start : start + OBJECTS_PER_DECODE])
            selected = decoded.selected.tolist()
            found: list[tuple[str | None, float | None]] = [(None, None)] * len(selected)
            if names is not None:
                chosen = decoded.embeddings[torch.arange(len(selected)), decoded.selected]
                best = label_probabilities(self._network, chosen, names).max(-1)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                found = [(names[i], value) for i, value in pairs]
            for n, s in enumerate(selected):
                results.append(self._obeyed(self._result(decoded, n, s, *found[n]), objects[start + n]))
        return results

    def _obeyed(self, result: Segmentation, item: ObjectPrompt) -> Segmentation:
        """The result with its clicks on the right side; of networks that keep fine features."""
        fine = getattr(getattr(self._features, "maps", None), "fine", None)
        if fine is None:
            return result
        logits = torch.tensor(result.logits, device=fine.device)
        obeyed = obey(logits, fine[0], item)
        return result if obeyed is logits else dataclasses.replace(result, logits=_array(obeyed))

    def _phrase(self, phrase: str, result: Segmentation, names: Sequence[str] | None) -> Segmentation:
        """A phrase by itself: a place chooses among instances, and the score says whether the phrase fits at all."""
        if (placed := self._placed(phrase, names)) is not None:
            return placed
        match = match_phrase(self._network, self._shown(phrase, result), phrase)
        return dataclasses.replace(result, score=float(match.expected[0]))

    def _pointed(self, phrase: str, names: Sequence[str] | None) -> Segmentation:
        """A phrase by itself, of a model with a closer look: the region that it means, of those that it points to."""
        if (placed := self._placed(phrase, names)) is not None:
            return placed
        name = main_name(phrase)
        # A prompt is answered at once; all regions would take seconds.
        found = dataclasses.replace(self._see(name, quick=True), few=True)
        match = match_phrase(self._network, found, name)
        q = likeliest(match.scores)
        score = float(match.expected[q])
        if name != phrase:  # which of several is meant is not known
            score /= max(1, len(find_instances(found, match.scores, PLACE_SHARE * float(match.scores[q]), None)))
        return self._region(found, q, score, found.score_kind, *self._name(found.take([q]), names))

    def _alike(self, reference: ReferencePrompt, result: Segmentation, names: Sequence[str] | None) -> Segmentation:
        """A region of another image by itself: the region that is most alike, if it is plainly more so than the answer
        of the network; models with a closer look alone can tell."""
        if reference.seen is None or not self._looks_closer:
            return result
        own = look_closer(self._network, self._features, self._photo, self._as_region(result))
        found = join_queries([own, self._regions])
        alike = likeness(self._network, found, reference.seen) * found.scores.clamp(0, 1).sqrt()
        q = int(alike.argmax())
        score = float(alike[q])
        if score <= ALIKER * float(alike[0]):
            return result
        return self._region(found, q, score, result.score_kind, *self._name(found.take([q]), names))

    @property
    def _looks_closer(self) -> bool:
        return self._photo is not None and self._network.closer_look is not None

    def _see(self, phrase: str, quick: bool = False) -> ObjectQueries:
        regions = self._regions if self._looks_closer and not quick else None
        return see_phrase(self._network, self._features, self._photo, phrase, regions)

    def _shown(self, phrase: str, result: Segmentation) -> ObjectQueries:
        """A result as a region, with what a phrase's heat map says of it, of networks that have one."""
        own, network = self._as_region(result), self._network
        return network.shown(network.shows(self._features, phrase), [own]) if hasattr(network, "shown") else own

    def _as_region(self, result: Segmentation) -> ObjectQueries:
        device = self._network.device
        return ObjectQueries(
            torch.tensor(result.logits[None], device=device),
            torch.tensor(result.embedding[None], device=device),
            torch.tensor([result.score], device=device),
        )

    def _name(self, region: ObjectQueries, names: Sequence[str] | None) -> tuple[str | None, float | None]:
        """The likeliest of the names for the only region there is."""
        if names is None:
            return None, None
        best = label_probabilities(self._network, region.embeddings, names, region.looked)[0].max(-1)
        return names[int(best.indices)], float(best.values)

    def _placed(self, phrase: str, names: Sequence[str] | None) -> Segmentation | None:
        """What "the dog on the left" means: which of all the dogs. None if it is not such a phrase, or if there are
        not several dogs; then the network answers the whole phrase."""
        place = parse_place(phrase) if getattr(self._network, "places_by_geometry", False) else None
        if place is None:
            return None
        queries = self._see(place.name, quick=True)
        scores = match_phrase(self._network, queries, place.name).scores
        likely = find_instances(queries, scores, PLACE_SHARE * float(scores.max()), None)
        chosen = choose(place, [_array(queries.logits[q]) > 0 for q in likely])
        if chosen is None:
            return None
        q = likely[chosen]
        label = self._name(queries.take([q]), names)
        return self._region(queries, q, float(queries.scores[q].clamp(0, 1)), "predicted_iou", *label)

    def _region(
        self, queries: ObjectQueries, q: int, score: float, kind: str, label: str | None, label_score: float | None
    ) -> Segmentation:
        return Segmentation(
            logits=_array(queries.logits[q]),
            score=score,
            score_kind=kind,
            label=label,
            label_score=label_score,
            image=self.digest,
            geometry=self.geometry,
            embedding=_array(queries.embeddings[q]),
        )

    def _result(
        self, decoded: Decoded, n: int, s: int, label: str | None = None, label_score: float | None = None
    ) -> Segmentation:
        return Segmentation(
            logits=_array(decoded.logits[n, s]),
            score=float(decoded.scores[n, s].clamp(0, 1)),
            score_kind=decoded.score_kind,
            label=label,
            label_score=label_score,
            image=self.digest,
            geometry=self.geometry,
            embedding=_array(decoded.embeddings[n, s]),
        )

    # ---- checks ---------------------------------------------------------------------------------------------------

    def _check_object(self, prompts: Sequence[object], previous: Previous | None, where: str) -> ObjectPrompt:
        """One object's prompts, checked and mapped to the encoded image."""
        checked = check_prompts(prompts, self.size, previous is not None, where)
        memory = None if previous is None else self._check_previous(previous, where)
        alone = len(checked) == 1 and memory is None
        references = [self._reference(p, where, alone) for p in checked if isinstance(p, Reference)]
        return object_prompt(checked, references, self.geometry, memory)

    def _check_previous(self, previous: Previous, where: str) -> Tensor:
        logits = previous
        if isinstance(previous, Segmentation):
            if previous.image != self.digest:
                raise ValueError(f"{where}previous: expected a result of this image, got one of {previous.image[:15]}…")
            logits = previous.logits
        if not isinstance(logits, np.ndarray):
            raise TypeError(f"{where}previous: expected a Segmentation or its logits, got {_show(previous)}")
        if logits.shape != self.geometry.mask_size or logits.dtype.kind != "f":
            got = f"shape {logits.shape} and dtype {logits.dtype}"
            raise ValueError(f"{where}previous: expected float logits of shape {self.geometry.mask_size}, got {got}")
        if not np.isfinite(logits).all():
            raise ValueError(f"{where}previous: expected finite logits, got NaN or infinity")
        return torch.tensor(logits, dtype=torch.float32, device=self._network.device)

    def _reference(self, reference: Reference, where: str, alone: bool = False) -> ReferencePrompt:
        other = reference.image
        if not isinstance(other, Scene):
            raise TypeError(f"{where}Reference.image: expected a Scene, got {_show(other)}")
        if other.weights != self.weights:
            raise ValueError(f"{where}Reference.image: expected a scene of the same model, got {other!r} of another")
        seen = other._seen(reference.prompt) if alone and self._looks_closer else None
        return ReferencePrompt(other._features, tuple(visual_prompts(reference.prompt, other.geometry)), seen)

    def _seen(self, prompt: Prompt) -> tuple[Tensor, Tensor] | None:
        """`ReferencePrompt.seen` of what a prompt marks here."""
        if not self._looks_closer:
            return None
        with torch.no_grad():
            marked = prompt if isinstance(prompt, Mask) else self.segment(prompt, label=False)
            embedding, inside = self._embedding(marked)
            looked = self._look_closer(inside)
        return None if looked is None else (embedding, looked)

    # ---- unprompted -----------------------------------------------------------------------------------------------

    @cached_property
    def _regions(self) -> ObjectQueries:
        """Every region that the model sees by itself: decided by the image alone, so computed once."""
        with torch.no_grad():
            return see_regions(self._network, self._features, self._photo)

    def find(
        self, text: str, threshold: float = DEFAULT_THRESHOLD, limit: int | None = None, quick: bool = False
    ) -> list[Segmentation]:
        """Every instance that a text names, best first; an empty list if it is not there.

        The first text, as `instances` and `panoptic`, waits for all regions of the image, which takes seconds; the next
        ones do not.

        Args:
            text: "dog", "red car"; "the dog on the left" is one of all dogs; also a `seem.Text`.
            threshold: 0..1, of the score: how likely it is that the text names the mask and the outline is right.
            limit: at most that many.
            quick: look only where the text points. It misses more instances, and takes a tenth of the time where an
                image is asked for one text.

        Raises:
            ValueError, TypeError: an empty or overlong text, a threshold outside 0..1, a limit below 1.
        """
        phrase = (text if isinstance(text, Text) else Text(text)).phrase
        threshold = check_unit("threshold", threshold)
        check_limit(limit)
        place = parse_place(phrase) if getattr(self._network, "places_by_geometry", False) else None
        name = phrase if place is None else place.name
        with torch.no_grad():
            queries = self._see(name, quick)
            scores, probabilities, _ = match_phrase(self._network, queries, name)
            sure = scores
            if queries.looked is not None:  # who looks closer sees what is around a region, too
                sure = torch.where(queries.scores >= OUTLINED, scores, -1.0)
            chosen = find_instances(queries, sure, threshold, limit if place is None else None)
        if place is not None and (meant := choose(place, [_array(queries.logits[q]) > 0 for q in chosen])) is not None:
            chosen = [chosen[meant]]
        return [self._region(queries, q, float(scores[q]), "match", phrase, float(probabilities[q])) for q in chosen]

    def instances(
        self, vocabulary: VocabularyLike | None = None, threshold: float = 0.05, limit: int = 100
    ) -> list[Segmentation]:
        """Every thing in the image with its name, best first; unlike `panoptic` down to low scores, and masks overlap.

        Args:
            vocabulary: names; COCO's 133 by default, of which the stuff is left out.
            threshold: 0..1, of the score: class probability x square root of the predicted IoU.
            limit: at most that many.

        Raises:
            ValueError, TypeError: a bad vocabulary, a threshold outside 0..1, a limit below 1.
        """
        threshold = check_unit("threshold", threshold)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit: expected a whole number from 1, got {limit!r}")
        named = self._vocabulary(vocabulary)
        queries = self._regions
        with torch.no_grad():
            names = [category.name for category in named]
            # what fits none of an own vocabulary's names is none of them
            probability = label_probabilities if vocabulary is None else match_probabilities
            probabilities = probability(self._network, queries.embeddings, names, queries.looked)
            best = probabilities.max(-1)
            is_thing = [*(category.is_thing for category in named), False][: probabilities.shape[1]]
            things = torch.tensor(is_thing, device=best.indices.device)[best.indices]
            scores = best.values * queries.scores.clamp_min(0).sqrt() * things
            kept = distinct(queries.logits, scores, threshold, SAME_INSTANCE)
        order = sorted(kept.tolist(), key=lambda q: -float(scores[q]))[:limit]
        return [
            self._region(queries, q, float(scores[q]), "match", names[int(best.indices[q])], float(best.values[q]))
            for q in order
        ]

    def everything(
        self,
        points_per_side: int = everything.POINTS_PER_SIDE,
        threshold: float = everything.SCORE,
        stability: float = everything.STABILITY,
        overlap: float = everything.OVERLAP,
        min_area: float = everything.MIN_AREA,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
        limit: int | None = None,
    ) -> list[Segmentation]:
        """Every mask that clicks all over the image give: things and their parts, overlapping, best first.

        Args:
            points_per_side: of the grid of clicks, 1 to 128. More finds smaller things and takes longer.
            threshold: 0..1, least score of a mask.
            stability: 0..1, how little a mask must change between a laxer and a stricter threshold.
            overlap: 0..1, most IoU of two results; the better one stays.
            min_area: pixels; smaller masks, islands and holes are left out.
            vocabulary, label: as in `segment`.
            limit: at most that many.

        Raises:
            ValueError, TypeError: a number that is not in its range, or a bad vocabulary.
        """
        if isinstance(points_per_side, bool) or not isinstance(points_per_side, int):
            raise TypeError(f"points_per_side: expected a whole number, got {_show(points_per_side)}")
        if not 1 <= points_per_side <= everything.MAX_POINTS_PER_SIDE:
            raise ValueError(f"points_per_side: expected 1 to {everything.MAX_POINTS_PER_SIDE}, got {points_per_side}")
        if isinstance(min_area, (bool, str)) or not isinstance(min_area, (int, float)) or not 0 <= min_area < np.inf:
            raise ValueError(f"min_area: expected a number of pixels from 0, got {_show(min_area)}")
        check_limit(limit)
        names = [category.name for category in self._vocabulary(vocabulary)] if label else None
        return everything.everything(
            self,
            points_per_side,
            check_unit("threshold", threshold),
            check_unit("stability", stability),
            check_unit("overlap", overlap),
            min_area,
            names,
            limit,
        )

    def panoptic(
        self,
        vocabulary: VocabularyLike | None = None,
        background: bool = False,
        threshold: float | None = None,
        overlap: float | None = None,
    ) -> Panoptic:
        """Divide the image into named things and stuff.

        Args:
            vocabulary: names; things unless given as ``(name, "stuff")``. COCO's 133 by default. What fits none of
                an own vocabulary's names stays 0 in the map.
            background: give every such pixel to one stuff segment named "others" instead.
            threshold: 0..1, of class probability x predicted IoU; lower finds more. The model's own by default.
            overlap: 0..1, how much of a region must remain visible behind better ones. The model's own by default.

        Raises:
            ValueError, TypeError: a bad vocabulary or threshold.
        """
        rule = self._network.panoptic_rule
        threshold = check_unit("threshold", rule.threshold if threshold is None else threshold)
        overlap = check_unit("overlap", rule.overlap if overlap is None else overlap)
        named = self._vocabulary(vocabulary)
        if background and any(category.name == OTHERS for category in named):
            raise ValueError(f'vocabulary: expected no name "{OTHERS}" with background=True, got one')
        with torch.no_grad():
            logits, classes, scores, regions = name_regions(
                self._network, self._features, self._regions, named, vocabulary is None, threshold, rule.distinct
            )
            stuff: list[int] = []
            if regions is not None:
                stuff = stuff_regions(regions, [not category.is_thing for category in named])
                logits = torch.cat([logits, regions[stuff]])
                classes, scores = classes + stuff, scores + [STUFF_SCORE] * len(stuff)
        found, segments = assemble(
            logits, classes, scores, [*named, None], self.geometry, overlap, fill=background, remainders=len(stuff)
        )
        return Panoptic(found, segments, self.digest)

    def label(
        self, mask: np.ndarray | Mask | Segmentation, vocabulary: VocabularyLike | None = None, top: int = 5
    ) -> list[tuple[str, float]]:
        """The most likely names of a region.

        A model with a closer look takes one here: it is surer of small things than the label that `segment` gives.

        Args:
            mask: (H, W) bool at the original size, or a `Segmentation` of this image.
            vocabulary: names to choose from; COCO's 133 by default. Probabilities are among these.
            top: how many to return, at most the size of the vocabulary.

        Returns:
            [(name, probability)], most likely first.
        """
        names = [category.name for category in self._vocabulary(vocabulary)]
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise ValueError(f"top: expected a whole number from 1, got {top!r}")
        with torch.no_grad():
            embedding, inside = self._embedding(mask)
            looked = self._look_closer(inside)
            probabilities = label_probabilities(self._network, embedding, names, looked)[0]
            best = probabilities.topk(min(top, len(names)))
        return [(names[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def _embedding(self, mask: np.ndarray | Mask | Segmentation) -> tuple[Tensor, Tensor]:
        """(1, D) class embedding of a region, and (h, w) bool where it is on the encoded image."""
        device = self._network.device
        if isinstance(mask, Segmentation):
            self._check_previous(mask, "mask: ")
            width, height = self.geometry.encoded
            inside = encoded_masks(torch.tensor(mask.logits)[None], (height, width))[0]
            return torch.tensor(mask.embedding, device=device)[None], inside
        if not isinstance(mask, Mask):
            mask = Mask(mask)
        check(mask, self.size, "mask")
        encoded = torch.from_numpy(self.geometry.mask_to_encoded(mask.array))
        height, width = self.geometry.mask_size
        padded = torch.zeros(height * 4, width * 4)
        padded[: encoded.shape[0], : encoded.shape[1]] = encoded
        coverage = torch.nn.functional.avg_pool2d(padded[None], 4).to(device)  # (1, h/4, w/4)
        return self._network.embed_masks(self._features, coverage), encoded

    def _look_closer(self, inside: Tensor) -> Tensor | None:
        """(1, D) what a closer look says (h, w) bool is; None if there is none to take."""
        photo = open_photo(self._network, self._photo)
        look = self._network.closer_look
        if look is None or photo is None or not inside.any():
            return None
        return look(look.look(self._network.semantic_encoder, photo, inside[None].to(photo.device)))

    def given(self, mask: np.ndarray | Mask) -> GivenSegmentation:
        """A mask that was made elsewhere, as a result: a round may read it as ``previous``. Its score is 1.

        Args:
            mask: (H, W) bool at the original size; it may be empty.
        """
        array = (mask if isinstance(mask, Mask) else Mask(mask)).array
        if (array.shape[1], array.shape[0]) != self.size:
            raise ValueError(f"mask: expected {self.size[0]}x{self.size[1]}, got {array.shape[1]}x{array.shape[0]}")
        if array.any():
            with torch.no_grad():
                embedding = self._embedding(array)[0][0]
            logits = given_logits(self.geometry, array)
        else:
            embedding = self._embedding(np.ones_like(array))[0][0] * 0
            logits = np.full(self.geometry.mask_size, -GIVEN_LOGIT, np.float32)
        return GivenSegmentation(
            logits=logits,
            score=1.0,
            score_kind="given",
            label=None,
            label_score=None,
            image=self.digest,
            geometry=self.geometry,
            embedding=_array(embedding),
            given=array,
        )

    def session(self) -> Session:
        """An interactive session: objects, rounds, undo and redo."""
        return Session(self)

    # ---- saved or sent --------------------------------------------------------------------------------------------

    def to_bytes(self, photo: bool = True) -> bytes:
        """The scene as one safetensors file; half precision, so masks from it may differ by rounding.

        It holds the features, the sizes and hashes, and needs the same weights to be used again.

        Args:
            photo: keep the JPEG of at most 1024 pixels a side that closer looks need; a scene without it has none.
        """
        header = {
            "weights": self.weights,
            "image": self.digest,
            "original": self.geometry.original,
            "encoded": self.geometry.encoded,
            "padded": self.geometry.padded,
        }
        return write_scene(header, self._features.to_tensors() | pack_photo(self._photo if photo else None))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_bytes` to a file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, model: Model) -> Scene:
        """The scene that `to_bytes` wrote.

        Args:
            data: the file's content; it may come from anywhere.
            model: a model with the same weights.

        Raises:
            ValueError: not a scene, another version, other weights, or sizes and tensors that do not fit each other.
        """
        header = read_header(data, model, None, model.max_pixels)
        width, height = header["original"]
        sizes = ImageGeometry.of((width, height), model.network.config.image)
        if [header.get("encoded"), header.get("padded")] != [list(sizes.encoded), list(sizes.padded)]:
            raise ValueError(f"scene: expected encoded size {sizes.encoded}, got {_show(header.get('encoded'))}")
        tensors = read_tensors(data)
        photo = unpack_photo(tensors, model.network)
        features = make_features(tensors, sizes, model)
        return cls(model.network, features, sizes, header["image"], model.weights, photo)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Model) -> Scene:
        """The scene in a file that `save` wrote. Raises ValueError as `from_bytes`, and OSError."""
        return cls.from_bytes(Path(path).read_bytes(), model)


def _array(tensor: Tensor) -> np.ndarray:
    """A float32 copy of its own, read-only."""
    return read_only(np.array(tensor.detach().float().cpu().numpy(), copy=True))


def check_list(name: str, value: object, expected: str) -> None:
    """A list that is no text."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected {expected}, got {_show(value)}")


def find_vocabulary(network: SEEM, vocabulary: VocabularyLike | None) -> tuple[Category, ...]:
    """The default is COCO's 133 and what the model was fine-tuned on."""
    own = getattr(network, "own_names", ()) if vocabulary is None else ()
    return parse_vocabulary(vocabulary) + (parse_vocabulary(own) if own else ())


def check_prompts(prompts: Sequence[object], size: tuple[int, int], remembered: bool, where: str) -> list[Prompt]:
    """One object's prompts, checked against an image of (width, height); `where` begins the message."""
    if not prompts:
        raise ValueError(f"{where}prompts: expected at least one prompt, got none")
    if len(prompts) > MAX_PROMPTS:
        raise ValueError(f"{where}prompts: expected at most {MAX_PROMPTS}, got {len(prompts)}")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, PROMPT_TYPES):
            expected = "a Click, Box, Scribble, Polygon, Mask, Text or Reference"
            raise TypeError(f"{where}prompts[{i}]: expected {expected}, got {_show(prompt)}")
    checked = [check(p, size, f"{where}prompts[{i}] ({type(p).__name__})") for i, p in enumerate(prompts)]
    if not remembered and not any(is_positive(prompt) for prompt in checked):
        raise ValueError(f"{where}prompts: expected a positive prompt, or previous, got only negative ones")
    return checked


def check_limit(limit: object) -> None:
    """None or a whole number from 1."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit: expected None or a whole number from 1, got {limit!r}")


def check_unit(name: str, value: float) -> float:
    """A number from 0 to 1."""
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number from 0 to 1, got {_show(value)}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected 0 to 1, got {value!r}")
    return float(value)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
