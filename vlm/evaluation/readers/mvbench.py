"""MVBench: 20 JSON files, a task each, about clips in folders of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.files import Files, json_rows, json_table
from vlm.evaluation.readers.rows import Ids, Row, check_counts, letter_of

# Task -> folder of its clips. Folders must stay apart: clips in clevrer and perception share names, not content.
CLIPS = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",  # folders of frames, three a second, to be sorted by number
    "counterfactual_inference": "clevrer/video_validation",
}


@dataclass(frozen=True)
class MvBench:
    """without: tasks that are left out; the result is then one of fewer tasks.   tables, clips: folders.

    Where a question has times, only that part of the clip is shown.   An id is "action_count/0": task and place.
    expected: questions, tasks, or a task -> its questions.   checksums: table -> sha256.
    """

    folder: str
    without: list[str] = field(default_factory=list)
    tables: str = "json"
    clips: str = "video"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [f"{self.tables}/{task}.json" for task in self._tasks()]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for clips that are not there (all are looked for first)."""
        files = Files(self.folder, self.checksums)
        paths = files.tables(self.files())
        tasks = {
            task: json_rows(path, json_table(path)) for task, path in zip(self._tasks(), paths, strict=True)
        }  # fmt: skip
        counts = {task: len(rows) for task, rows in tasks.items()}
        check_counts(
            self.folder, {**counts, "questions": sum(counts.values()), "tasks": len(counts)}, self.expected
        )  # fmt: skip
        files.present((self._clip(task, row) for task, rows in tasks.items() for row in rows), "clips")
        ids = Ids()
        for task, rows in tasks.items():
            for number, row in enumerate(rows):
                candidates, name = row.texts("candidates"), self._clip(task, row)
                gold = letter_of(row, candidates, row.text("answer"))
                reference = {"candidates": candidates, "gold": gold, "task": task}
                id = ids.new(row, f"{task}/{number}", candidates)
                clip = files.clip(name, _times(row))
                yield Question(id, name, row.text("question"), reference, (clip,), tuple(candidates))
        ids.tell()

    def _tasks(self) -> list[str]:
        stray = set(self.without) - set(CLIPS)
        if stray:
            raise InputError(f"reader.without names {', '.join(sorted(stray))}; the tasks are {', '.join(CLIPS)}")
        return [task for task in CLIPS if task not in self.without]

    def _clip(self, task: str, row: Row) -> str:
        return f"{self.clips}/{CLIPS[task]}/{row.text('video')}"


def _times(row: Row) -> tuple[float, float] | None:
    """First and last second, None for the whole clip."""
    given = [row.values.get(name) for name in ("start", "end")]
    if given == [None, None]:
        return None
    times = [float(value) for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(times) < 2 or not 0 <= times[0] < times[1]:
        raise row.fault(f"start is {given[0]!r} and end {given[1]!r}; two times in seconds are expected, end later")
    return times[0], times[1]
