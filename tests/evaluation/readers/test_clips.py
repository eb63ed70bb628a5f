"""MVBench and Video-MME: questions about clips, which stay files until a model looks at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.readers.written import headline, is_perfect, put, put_parquet, read, refused
from vlm.evaluation.readers.mvbench import CLIPS, MvBench
from vlm.evaluation.readers.videomme import VideoMme


def mvbench(path: Path, without: tuple[str, ...] = (), **changed: Any) -> MvBench:
    """Each task asks once about a clip called video_1.mp4. changed: keys of action_count's question."""
    for task, folder in CLIPS.items():
        entry = {
            "video": "video_1.mp4", "question": "How often?", "candidates": ["1", "2", "3"], "answer": "2",
        }  # fmt: skip
        if task in ("action_sequence", "episodic_reasoning"):
            entry |= {"start": 1.5, "end": 8.25, "fps": 3}
        put(path / f"json/{task}.json", [entry | (changed if task == "action_count" else {})])
        put(path / f"video/{folder}/video_1.mp4", b"clip")
    return MvBench(str(path), list(without))


def test_clips_of_the_same_name_in_two_folders_stay_two_clips(tmp_path: Path) -> None:
    questions = {question.reference["task"]: question for question in read(mvbench(tmp_path))}
    assert len(questions) == 20
    count, moving = questions["action_count"], questions["moving_count"]
    assert (count.id, count.reference) == (
        "action_count/0", {"candidates": ["1", "2", "3"], "gold": "B", "task": "action_count"},
    )  # fmt: skip
    assert count.group == questions["state_change"].group != moving.group
    assert count.pictures[0].type == "video"
    assert count.pictures[0].read().decode() == str(tmp_path / "video/perception/videos/video_1.mp4")


def test_questions_with_times_show_that_part_of_the_clip(tmp_path: Path) -> None:
    questions = {question.reference["task"]: question for question in read(mvbench(tmp_path))}
    clip = questions["action_sequence"].pictures[0]
    assert clip.id == "video/star/Charades_v1_480/video_1.mp4#t=1.5,8.25"
    assert clip.read().decode() == f"{tmp_path}/{clip.id}"
    assert questions["action_prediction"].pictures[0].id == "video/star/Charades_v1_480/video_1.mp4"
    assert questions["action_prediction"].group == questions["action_sequence"].group


def test_a_task_that_cannot_be_had_is_left_out_by_name(tmp_path: Path) -> None:
    reader = mvbench(tmp_path, without=("fine_grained_pose",))
    for path in tmp_path.rglob("*fine_grained_pose*"):
        path.unlink()
    assert len(read(MvBench(reader.folder, reader.without, expected={"questions": 19, "tasks": 19}))) == 19
    refused(MvBench(reader.folder), "fine_grained_pose.json is not there")
    refused(MvBench(reader.folder, ["pose"]), "reader.without names pose; the tasks are action_sequence")
    refused(MvBench(reader.folder, reader.without, expected={"questions": 3800}), "19 questions, but 3,800")


def test_the_truth_is_right_in_every_task(tmp_path: Path) -> None:
    reader = mvbench(tmp_path)
    assert is_perfect(reader, "mvbench", lambda question: question.reference["gold"])
    assert headline(reader, "mvbench", lambda question: "(B) 2") == 1.0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"answer": "4"}, "action_count.json row 1: the right answer '4' is none of the options"),
        ({"candidates": []}, "row 1: the right answer '2' is none of the options"),
        ({"video": "video_2.mp4"}, "1 of 12 clips are not there, for example video/perception/videos/video_2.mp4"),
        ({"start": 3}, "row 1: start is 3 and end None; two times in seconds are expected"),
        ({"start": 3, "end": 2}, "row 1: start is 3 and end 2"),
    ],
)
def test_mvbench_refuses_what_cannot_be_asked(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    refused(mvbench(tmp_path, **changed), told)


def videomme(path: Path, **changed: Any) -> VideoMme:
    """A clip of each length with one question. changed: keys of the first."""
    rows = [
        {
            "video_id": f"00{number}", "duration": duration, "domain": "Knowledge", "sub_category": "Astronomy",
            "url": "", "videoID": f"clip-{number}", "question_id": f"00{number}-1", "task_type": "Counting Problem",
            "question": "How many?", "options": ["A. One.", "B. Two.", "C. Three.", "D. A. Four."], "answer": "C",
        }
        for number, duration in enumerate(("short", "medium", "long"))
    ]  # fmt: skip
    rows[0] |= changed
    put_parquet(path / "videomme/test-00000-of-00001.parquet", rows)
    for number in range(3):
        put(path / f"data/clip-{number}.mp4", b"clip")
    return VideoMme(str(path), expected={"questions": 3, "clips": 3, "short": 1, "medium": 1, "long": 1})


def test_videomme_takes_the_letters_off_its_options_and_keeps_them_in_the_gold_data(tmp_path: Path) -> None:
    question = read(videomme(tmp_path))[0]
    assert (question.id, question.group) == ("000-1", "clip-0")
    assert question.options == ("One.", "Two.", "Three.", "A. Four.")
    assert question.reference == {
        "options": ["A. One.", "B. Two.", "C. Three.", "D. A. Four."], "gold": "C", "duration": "short",
        "domain": "Knowledge", "sub_category": "Astronomy", "task_type": "Counting Problem",
    }  # fmt: skip
    assert question.pictures[0].read().decode() == str(tmp_path / "data/clip-0.mp4")
    assert is_perfect(videomme(tmp_path), "videomme", lambda question: "C")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"options": ["A. One.", "B. Two.", "C. Three."]}, "row 1: options holds 3 entries, not 4"),
        ({"options": ["A. One.", "C. Two.", "B. Three.", "D. Four."]}, "row 1: option 'C. Two.' does not begin with 'B'"),
        ({"answer": "E"}, "row 1: the right answer is option 4"),
        ({"duration": "short "}, "row 1: duration is 'short '; one of long, medium, short"),
        ({"videoID": "clip-9"}, "1 of 3 clips are not there, for example data/clip-9.mp4"),
        ({"videoID": "clip-1"}, "2 clips, but 3 are published"),
    ],
)  # fmt: skip
def test_videomme_refuses_other_rows(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    refused(videomme(tmp_path, **changed), told)
