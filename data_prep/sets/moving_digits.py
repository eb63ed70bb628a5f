"""Real handwritten digits in made motion, and questions of which most can be answered only by looking where a mark was.

A clip has a few frames of a square canvas of grid x grid cells (4 x 4 cells of 28 pixels, as large as a digit of MNIST).
The first `cue_frames` show a frame around one cell, and nothing else. All later ones show a digit in every cell, each of
them wandering on a path of its own within the margin of its cell, and no mark. Asked is either

* digit: "Which digit is at the mark?"  The answer needs one of 16 digits, and which one it is was told before any digit
  was there. An encoder that gives one token a frame by a fixed query has to carry all of them: 16 digits are 53 bits
  that have to pass through one attention read a layer, since what is asked comes after the picture; the same digits
  stay, so that more frames bring no more of them through. A query that knows the place, because a language model has
  seen the mark in an earlier frame and says where to look, needs one cell: 3.3 bits. Guessing gives 1 in 10. (A small
  network that reads one frame through one query of 4 heads, trained from nothing on these 3,000 clips for 30 epochs:
  85 % on test with a query drawn from the true place, 11 % with a fixed one that is told the place afterwards; one seed.)
* place: "Where is the mark?"  One of four corners; the frames of the mark show nothing else, so a coarse look is enough.
  It tells whether a model sees at all, and whether foveation costs what was had without it. Guessing gives 1 in 4.

Digits and places of the answers are balanced in every split, and other digits are drawn evenly, so text alone gives no
more than guessing. A handwritten digit stands in one split only: training takes nine of ten of MNIST's training
pictures, validation the tenth, test its test pictures. Who takes half of the frames evenly (1, 3, 5, 7 of 8) still sees
the mark once; who takes two or one does not: by that the cost of few frames shows. Motion, mark and questions are made
(`meta.made` says so), the digits are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le, MultipleOf
from PIL import Image

from data_prep.rows import Clip, Frames, Inputs, Picture, Row, Skip, question_of_clip, reply
from data_prep.sets.mnist import NAMES, Idx
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt, Seed
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

CELL = 28  # pixels: a digit of MNIST, whose ink keeps some 4 pixels from its border
MARGIN = 3
RING = 3  # pixels of the mark's line
HELD_OUT = 10  # every tenth training picture is for validation
MADE = "motion, mark and question by this project; digits by hand"
QUESTIONS = {"digit": "Which digit is at the mark?", "place": "Where is the mark?"}


@dataclass(frozen=True)
class MovingDigits:
    """clips: split -> how many.   grid: cells a side.   frames: of a clip.   cue_frames: of these with the mark alone.

    asked: question -> its weight.   seed: another one makes other clips of the same digits.
    under, checksums, license: of MNIST, as in Idx.
    """

    __pydantic_config__: ClassVar = STRICT
    under: str
    checksums: dict[str, str] | None
    license: str
    clips: dict[Literal["train", "val", "test"], PositiveInt]
    grid: Annotated[int, Ge(2), Le(8), MultipleOf(2)]
    frames: Annotated[int, Ge(3), Le(64)]
    cue_frames: PositiveInt
    asked: dict[Literal["digit", "place"], PositiveInt]
    seed: Seed

    def __post_init__(self) -> None:
        if self.cue_frames >= self.frames:
            raise ValueError(f"cue_frames={self.cue_frames} leave no frame for digits of frames={self.frames}")

    def total(self, inputs: Inputs) -> int | None:
        return sum(self.clips.values())

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """By split and number. Raises: InputError for other files than MNIST's."""
        digits = self._digits(inputs)
        for place, (split, count) in enumerate(self.clips.items()):
            for number in range(count):
                yield self._row(split, number, digits[split], np.random.default_rng([self.seed, place, number]))

    def _digits(self, inputs: Inputs) -> dict[str, list[list[np.ndarray]]]:
        """split -> class -> pictures, uint8 [28, 28] each."""
        found: dict[str, list[list[np.ndarray]]] = {split: [[] for _ in NAMES] for split in ("train", "val", "test")}
        idx = Idx(self.under, "", list(NAMES), self.license, self.checksums)
        for row in idx.rows(inputs):
            if isinstance(row, Row) and row.messages is not None:
                held_out = row.split == "train" and row.origin.row % HELD_OUT == 0
                (picture,) = row.pictures
                pixels = np.asarray(picture.content)
                found["val" if held_out else str(row.split)][NAMES.index(row.messages[-1].text)].append(pixels)
        for split in self.clips:
            for name, pictures in zip(NAMES, found[split], strict=True):
                if not pictures:
                    raise InputError(
                        f"{inputs.only()} holds no picture of {name} for its {split} split; give MNIST's files"
                    )
        return found

    def _row(self, split: str, number: int, digits: list[list[np.ndarray]], dice: np.random.Generator) -> Row:
        cells = self.grid**2
        classes = dice.integers(0, len(NAMES), cells)
        cell = number // len(NAMES) % cells
        classes[cell] = number % len(NAMES)
        weights = np.array(list(self.asked.values()), float)
        kind = str(dice.choice(list(self.asked), p=weights / weights.sum()))
        inks = [digits[label][dice.integers(len(digits[label]))] for label in classes]
        frames = [self._marked(cell)] * self.cue_frames
        frames += self._wandering(inks, self.frames - self.cue_frames, dice)
        pictures = tuple(Picture(Image.fromarray(pixels), f"{split}-{number}") for pixels in frames)
        clip = Clip(Frames(pictures, tuple(map(float, range(len(frames)))), 1.0), f"{split}-{number}")
        answer = NAMES[classes[cell]] if kind == "digit" else self._corner(cell)
        origin = Origin("moving digits", number, f"{split}-{number}")
        meta = {"type": kind, "cell": list(divmod(cell, self.grid)), "made": MADE}
        messages = [question_of_clip(QUESTIONS[kind]), reply(answer)]
        return Row(split, origin, (clip,), self.license, messages=messages, meta=meta)

    def _marked(self, cell: int) -> np.ndarray:
        canvas = np.zeros((self.grid * CELL, self.grid * CELL), np.uint8)
        top, left = (CELL * place for place in divmod(cell, self.grid))
        canvas[top : top + CELL, left : left + CELL] = 255
        canvas[top + RING : top + CELL - RING, left + RING : left + CELL - RING] = 0
        return canvas

    def _wandering(self, inks: list[np.ndarray], count: int, dice: np.random.Generator) -> list[np.ndarray]:
        """Each digit on an ellipse of its own, once or twice around it in a clip."""
        reach = dice.uniform(1, MARGIN, (len(inks), 2))
        phase, turns = dice.uniform(0, 2 * np.pi, (len(inks), 2)), dice.uniform(1, 2, (len(inks), 1))
        frames = []
        for number in range(count):
            canvas = np.zeros((self.grid * CELL, self.grid * CELL), np.uint8)
            steps = np.rint(reach * np.sin(phase + 2 * np.pi * turns * number / count)).astype(int)
            for cell, (ink, step) in enumerate(zip(inks, steps, strict=True)):
                top, left = (CELL * place for place in divmod(cell, self.grid))
                canvas[top : top + CELL, left : left + CELL] = np.roll(ink, tuple(step), (0, 1))
            frames.append(canvas)
        return frames

    def _corner(self, cell: int) -> str:
        row, column = divmod(cell, self.grid)
        return f"{'top' if 2 * row < self.grid else 'bottom'} {'left' if 2 * column < self.grid else 'right'}"
