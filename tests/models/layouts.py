"""Small models, and batches written down segment by segment, packed or a row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vlm.contracts.batch import IGNORE, PADDING, VISUAL, Batch
from vlm.contracts.vision import ViewSpec
from vlm.models.assemble import assemble
from vlm.models.vlm import VLM

VIEWS = ViewSpec(channels=3, height=16, width=16)
VISION = {
    "model": {"_target_": "vlm.models.vlm.VLM"},
    "encoder": {"_target_": "vlm.models.encoders.cnn.CNN", "channels": [4, 8], "grid": 2},
    "connector": {"_target_": "vlm.models.connectors.linear.Linear", "bias": True},
    "fusion": {"_target_": "vlm.models.fusion.placeholder.Placeholder"},
}
SIZES = {"vocab_size": 23, "width": 16, "layers": 2, "heads": 2, "mlp": 32, "max_positions": 60}
DECODERS = {
    "gpt2": {"_target_": "vlm.models.llms.gpt2.GPT2", "dropout": 0.0},
    "tiny": {"_target_": "vlm.models.llms.tiny_gpt.TinyGPT", "attention": "tensor", "fidelity": "exact"},
    "dot": {"_target_": "vlm.models.llms.tiny_gpt.TinyGPT", "attention": "dot", "fidelity": "exact"},
}


def small_model(decoder: str) -> VLM:
    """Four visual tokens a view, two blocks, weights of a fixed seed."""
    torch.manual_seed(3)
    return assemble({**VISION, "llm": {**DECODERS[decoder], **SIZES}}, VIEWS)


@dataclass(frozen=True)
class Segment:
    """text: ids.   picture: number of the view in front of them.   above: its parent among the segments of its row.

    A branch begins with the last token that it shares with its siblings, as the contract says.
    """

    text: tuple[int, ...]
    picture: int | None = None
    above: int = -1
    sample: int = 0


def apart(row: Sequence[Segment]) -> list[list[Segment]]:
    """What a packed row stands for: each segment that nothing branches from, with its ancestors in front, as a row."""
    parents = {segment.above for segment in row}
    rows = []
    for number, segment in enumerate(row):
        if number in parents:
            continue
        whole = segment
        while whole.above >= 0:
            prefix = row[whole.above]
            whole = replace(whole, text=(*prefix.text, *whole.text), picture=prefix.picture, above=prefix.above)
        rows.append([whole])
    return rows


def batch_of(model: VLM, rows: Sequence[Sequence[Segment]], answers: Sequence[int], padding: int = 0) -> Batch:
    """rows of segments -> a batch; views, seeded, are the same in every batch of as many pictures.

    answers: of each segment that carries loss, in turn, how many of its last tokens do. padding: more than needed.
    """
    count = model.connector.spec.count(VIEWS.height, VIEWS.width, None)
    ids, labels, positions, segments, parent, sample, slots = [], [], [], [], [], [], []
    asked = iter(answers)
    for number, row in enumerate(rows):
        parents, begin, ends = {segment.above for segment in row}, len(parent), []
        line: list[list[int]] = [[], [], [], []]
        for place, segment in enumerate(row):
            piece = [VISUAL] * (count * (segment.picture is not None)) + list(segment.text)
            start = 0 if segment.above < 0 else ends[segment.above]
            ends.append(start + len(piece))
            targets = 0 if place in parents else next(asked)
            line[0] += piece
            line[1] += [IGNORE] * (len(piece) - targets) + piece[len(piece) - targets :]
            line[2] += range(start, ends[-1])
            line[3] += [begin + place] * len(piece)
            parent.append(-1 if segment.above < 0 else begin + segment.above)
            sample.append(segment.sample)
            slots += [[number, segment.picture]] * (segment.picture is not None)
        for lines, piece in zip((ids, labels, positions, segments), line, strict=True):
            lines.append(piece)
    length = max(map(len, ids)) + padding
    pictures = 1 + max((slot[1] for slot in slots), default=0)
    views = torch.rand(pictures, VIEWS.channels, VIEWS.height, VIEWS.width, generator=torch.Generator().manual_seed(0))

    def filled(lines: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([line + [value] * (length - len(line)) for line in lines])

    return Batch(
        ids=filled(ids, 0),
        labels=filled(labels, IGNORE),
        positions=filled(positions, 0),
        segment=filled(segments, PADDING),
        parent=torch.tensor(parent),
        sample=torch.tensor(sample),
        views=views.to(next(model.parameters()).dtype),
        slots=torch.tensor(slots, dtype=torch.long).reshape(-1, 2),
        pictures=torch.arange(pictures),
        keys=tuple(str(number) for number in range(max(sample) + 1)),
    )
