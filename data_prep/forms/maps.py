"""Maps of KGeography as choice questions in ScienceQA's form: the pixels of one colour are the area asked for."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image

from data_prep.forms.facts import number
from data_prep.forms.material import File, Material
from data_prep.forms.scienceqa import CHOICES, Problem, written
from data_prep.reading.archive import files as members
from vlm.contracts.errors import InputError

UNDER = "usr/share/kgeography/"
MARK = (220, 30, 30)
ABOUT = """The area asked for is red, everything else grey. `topic` is areas (its name: which of four of the same map?)
or capitals (of the area; an answer from knowledge, so report it apart). Areas without a colour of their own or a pixel
of it, and questions with under three other answers on the map, are left out. A constant choice gets 25.0."""


@dataclass(frozen=True)
class Area:
    """A named part of a map. picture: the map's file.   capital: None if it has none.   colour: of its pixels."""

    map: str
    picture: str
    title: str
    name: str
    capital: str | None
    colour: tuple[int, ...]

    @property
    def key(self) -> str:
        return f"{self.map}/{self.name}"


def files(material: Material) -> Iterator[File]:
    place = material.places["kgeography-data"]
    found = {file.name.removeprefix(UNDER): file.data for file in members(place, UNDER, (".kgm", ".png"))}
    tables = {name: areas(name, data) for name, data in sorted(found.items()) if name.endswith(".kgm")}
    every = [area for part in tables.values() for area in part]
    drawn = {area.key for area in sorted(every, key=lambda area: number("maps", area.key))[: material.areas]}
    problems = []
    for name, own in tables.items():
        names = [area.name for area in own]
        capitals = [area.capital for area in own if area.capital]
        shared = Counter(area.colour for area in own)
        for area in own:
            if area.picture not in found:
                raise InputError(f"{place}: {name} names {area.picture}, which is not there; get the package again")
            if area.key not in drawn or shared[area.colour] > 1:
                continue
            marked = _marked(found[area.picture], area.colour)
            if marked is None:
                continue
            asked = f"Which of these is the area marked in red on the map of {area.title}?"
            problems += _problem(area, "areas", asked, area.name, names, marked)
            if area.capital:
                asked = f"What is the capital of {area.name}, the area marked in red on the map of {area.title}?"
                problems += _problem(area, "capitals", asked, area.capital, capitals, marked)
    yield from written(problems, "geography")


def _problem(area: Area, topic: str, asked: str, right: str, others: list[str], picture: bytes) -> Iterator[Problem]:
    """None if the map has too few other answers."""
    wrong = sorted(set(others) - {right})
    if len(wrong) >= CHOICES - 1:
        skill = "Read a map" if topic == "areas" else "Name a capital"
        yield Problem(f"{area.key}/{topic}", asked, right, wrong, picture, topic, skill)


def areas(name: str, data: bytes) -> list[Area]:
    """The plain divisions of a map: no frontiers, water or neighbours, and none that is not to be asked for.

    Raises: InputError for a file that is not such a map.
    """
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise InputError(f"{name} is no map of KGeography ({error}); get the package again") from error
    own = name.removesuffix(".kgm")
    title, picture = root.findtext("name", own), root.findtext("mapFile", f"{own}.png")
    return [
        Area(
            own, picture, title, division.findtext("name", ""), division.findtext("capital"),
            tuple(int(division.findtext(f"color/{part}", "-1")) for part in ("red", "green", "blue")),
        )
        for division in root.iter("division")
        if division.findtext("ignore") is None
    ]  # fmt: skip


@lru_cache(maxsize=1)  # areas come map by map
def _opened(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Palette numbers [H, W] and the palette [256, 3]. Raises: InputError for a picture without a palette."""
    with Image.open(BytesIO(data)) as picture:
        if picture.mode != "P":
            raise InputError(f"a map of {UNDER} has mode {picture.mode}, not a palette; get the package again")
        palette = np.zeros((256, 3), np.uint8)
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        return np.array(picture), palette


def _marked(data: bytes, colour: tuple[int, ...]) -> bytes | None:
    """The map as PNG with the area red, None if it has no pixel."""
    numbers, palette = _opened(data)
    own = (palette == colour).all(axis=1)
    if not own[numbers].any():
        return None
    grey = (palette @ np.array([0.299, 0.587, 0.114]) * 0.5 + 110).astype(np.uint8)
    shown = np.where(own[:, None], np.array(MARK, np.uint8), grey[:, None])
    picture = Image.fromarray(numbers).convert("L")
    picture.putpalette(shown.astype(np.uint8).tobytes())
    target = BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()
