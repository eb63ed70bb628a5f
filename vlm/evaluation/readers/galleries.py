"""Captioned pictures as galleries: each picture looks for its caption, each caption for its picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from vlm.contracts.benchmark import Picture, Question
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.flickr8k import Flickr8k
from vlm.evaluation.readers.prepared import Captions
from vlm.evaluation.readers.rows import check_counts
from vlm.evaluation.scorers.retrieval import IMAGE_TO_TEXT, TEXT_TO_IMAGE


@dataclass(frozen=True)
class Pair:
    """A picture and captions that belong to it. id: of its row."""

    id: str
    picture: Picture
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Galleries:
    """Galleries of equal size, of different pictures with different captions.

    Which pictures stand together is told by their bytes alone, so it is the same for every model. Each picture is in
    one gallery at most; what fills no gallery is left out.
    folder: <set>/<split> of a prepared set; of a row with several captions the first counts.   gallery: pictures.
    expected: galleries, questions; None for any.
    """

    folder: str
    gallery: Annotated[int, Ge(2)]
    expected: dict[str, int] | None = None

    def files(self) -> list[str]:
        return Captions(self.folder).files()

    def questions(self) -> Iterator[Question]:
        """Those of a gallery behind one another, which is their group.

        Raises: InputError for a split that is not there, holds something else, or fills no gallery.
        """
        pairs = []
        for row in Captions(self.folder).questions():
            if len(row.pictures) != 1 or not row.reference[0].strip():
                raise InputError(f"{self.folder} {row.id} is no picture with its caption; choose another set")
            pairs.append(Pair(row.id, row.pictures[0], (row.reference[0],)))
        found = grouped(pairs, self.gallery)
        if not found:
            raise InputError(
                f"{self.folder} fills no gallery of {self.gallery} pictures with different captions; lower reader.gallery"
            )
        counts = {"galleries": len(found), "questions": 2 * self.gallery * len(found)}
        check_counts(self.folder, counts, self.expected)
        for number, gallery in enumerate(found):
            yield from searches(gallery, f"gallery {number}")


@dataclass(frozen=True)
class Flickr8kGallery:
    """One gallery of all pictures with all their captions, as it is published; a picture's questions are a group.

    Arguments are those of `Flickr8k`.
    """

    folder: str
    table: str = "Flickr8k.token.txt"
    names: str = "Flickr_8k.testImages.txt"
    pictures: str = "Flicker8k_Dataset"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return self._captioned().files()

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, as `Flickr8k`."""
        pairs = [Pair(row.id, row.pictures[0], tuple(row.reference)) for row in self._captioned().questions()]
        yield from searches(pairs)

    def _captioned(self) -> Flickr8k:
        return Flickr8k(self.folder, self.table, self.names, self.pictures, self.expected, self.checksums)


def grouped(pairs: Sequence[Pair], size: int) -> list[list[Pair]]:
    """Full galleries: in the order of a hash, each pair goes to the first one that has room and nothing equal to it."""
    galleries: list[dict[str, Pair]] = []
    shown: list[set[str]] = []
    for pair in sorted(pairs, key=_number):
        (caption,) = pair.captions
        same = " ".join(caption.casefold().split())
        for number, gallery in enumerate(galleries):
            if len(gallery) < size and same not in gallery and pair.picture.id not in shown[number]:
                break
        else:
            number, gallery = len(galleries), {}
            galleries.append(gallery)
            shown.append(set())
        gallery[same] = pair
        shown[number].add(pair.picture.id)
    return [list(gallery.values()) for gallery in galleries if len(gallery) == size]


def searches(gallery: Sequence[Pair], group: str | None = None) -> Iterator[Question]:
    """All questions of a gallery. group: of all of them; None for one a pair.

    The gold data name the places of what is right: of `options` for a picture, of `pictures` for a caption.
    """
    pictures = tuple(pair.picture for pair in gallery)
    captions = tuple(caption for pair in gallery for caption in pair.captions)
    first = 0
    for pair in gallery:
        right = list(range(first, first + len(pair.captions)))
        first += len(pair.captions)
        gold = {"direction": IMAGE_TO_TEXT, "gallery": len(captions), "right": right}
        yield Question(f"{pair.id}/{IMAGE_TO_TEXT}", group or pair.id, "", gold, (pair.picture,), captions)
    for place, pair in enumerate(gallery):
        gold = {"direction": TEXT_TO_IMAGE, "gallery": len(pictures), "right": [place]}
        for number, caption in enumerate(pair.captions):
            id = f"{pair.id}/{TEXT_TO_IMAGE}" + (f"/{number}" if len(pair.captions) > 1 else "")
            yield Question(id, group or pair.id, caption, gold, pictures)


def _number(pair: Pair) -> bytes:
    return hashlib.sha256(f"{pair.picture.id} {pair.captions[0]}".encode("utf-8", "surrogatepass")).digest()
