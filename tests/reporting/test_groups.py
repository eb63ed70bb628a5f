from __future__ import annotations

import math

import pytest

from vlm.reporting.groups import BLIND, VisionGain, differences, group_runs
from vlm.reporting.runs import find_runs

DOT = {"llm": {"_target_": "vlm.models.llms.tiny_gpt.TinyGPT", "attention": "dot"}}


def groups_of(folders):
    return group_runs(find_runs(folders.root))


def exact(value: float, **more: float) -> dict:
    return {"metrics": {"test/exact_match": value, **more}}


def test_runs_that_differ_by_seed_alone_form_a_group(folders):
    folders.run(identity="a")
    folders.run(identity="b", config={"seed": 1, "paths": {"runs": "elsewhere"}})
    (group,) = groups_of(folders)
    assert [run.seed for run in group.runs] == [0, 1]
    assert group.label == "purevlm"


def test_groups_are_named_by_the_keys_that_differ(folders):
    folders.run(identity="a")
    folders.run(identity="b", config=DOT)
    assert [group.label for group in groups_of(folders)] == ["llm.attention=dot", "llm.attention=tensor"]


def test_systems_are_not_compared_with_each_other(folders):
    folders.run("purevlm", config=DOT)
    folders.run("captioner", config={"other": 1})
    assert [(group.system, group.differs) for group in groups_of(folders)] == [("captioner", {}), ("purevlm", {})]


def test_a_run_without_a_config_stands_alone_and_compares_with_nothing(folders):
    folders.run(identity="a")
    (folders.run(identity="b") / "config.yaml").unlink()
    assert [group.label for group in groups_of(folders)] == ["folder=purevlm/b", "purevlm"]


def test_another_class_of_a_part_is_told_by_its_name_alone():
    cnn, vit = {"_target_": "a.CNN", "channels": 8}, {"_target_": "a.ViT", "width": 64, "depth": 2}
    assert differences([{"encoder": cnn}, {"encoder": vit}]) == [{"encoder": "CNN"}, {"encoder": "ViT"}]


def test_two_parts_of_one_class_are_still_told_apart_beside_a_third():
    parts = [{"_target_": "a.CNN", "channels": 8}, {"_target_": "a.CNN", "channels": 16}, {"_target_": "a.ViT"}]
    assert differences([{"encoder": part} for part in parts]) == [
        {"encoder": "CNN", "encoder.channels": "8"},
        {"encoder": "CNN", "encoder.channels": "16"},
        {"encoder": "ViT"},
    ]


def test_other_sets_are_told_by_their_names():
    first, second = {"data": {"train": {"mnist": {"split": "train"}}}}, {"data": {"train": {"digits": {"split": "a"}}}}
    assert differences([first, second]) == [{"data.train": "mnist"}, {"data.train": "digits"}]


def test_several_seeds_have_the_interval_of_student_t(folders):
    for seed, value in enumerate([0.96, 0.97, 0.98]):
        folders.run(identity=str(seed), config={"seed": seed}, status=exact(value))
    found = groups_of(folders)[0].proportion("test/exact_match")
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.97, 0.97 - half, 0.97 + half))


def test_an_interval_of_a_share_stays_below_one(folders):
    for seed, value in enumerate([0.9, 1.0]):
        folders.run(identity=str(seed), config={"seed": seed}, status=exact(value))
    assert groups_of(folders)[0].proportion("test/exact_match").high == 1.0


def test_one_seed_has_the_interval_over_its_answers(folders):
    more = {"test/exact_match_low": 0.7, "test/exact_match_high": 0.9, "test/exact_match_n": 50}
    folders.run(status=exact(0.8, **more))
    found = groups_of(folders)[0].proportion("test/exact_match")
    assert (found.mean, found.low, found.high) == (0.8, 0.7, 0.9)


def test_unfinished_runs_do_not_enter_the_numbers_of_finished_ones(folders):
    folders.run(identity="a", status=exact(0.9))
    folders.run(identity="b", config={"seed": 1}, status={"state": "stopped", **exact(0.1)})
    (group,) = groups_of(folders)
    assert len(group.runs) == 2
    assert group.estimate("test/exact_match").values == (0.9,)


@pytest.mark.parametrize(
    ("gain", "error", "verdict"),
    [
        (0.5, 0.1, "uses its pictures"),
        (0.1, 0.1, "not shown to use its pictures"),
        (0.1, math.inf, "not shown to use its pictures"),
        (-0.1, 0.1, "does not use its pictures"),
    ],
)
def test_the_vision_gain_in_words(gain, error, verdict):
    assert VisionGain(gain, error).verdict == verdict


def test_errors_of_seeds_that_see_the_same_pictures_are_not_averaged_away(folders):
    for seed in range(4):
        folders.run(identity=str(seed), config={"seed": seed})
    assert groups_of(folders)[0].vision_gain() == VisionGain(pytest.approx(0.8), pytest.approx(0.05))


def test_a_blind_model_is_warned_of_once(folders):
    metrics = {"val/vision_gain": -0.01, "val/vision_gain_se": 0.02}
    folders.run("quiet", status={"metrics": metrics})
    folders.run("loud", status={"metrics": metrics, "warnings": [f"{BLIND}: vision gain -0.01"]})
    loud, quiet = groups_of(folders)
    assert loud.warnings() == [f"{BLIND}: vision gain -0.01"]
    assert len(quiet.warnings()) == 1
    assert quiet.warnings()[0].startswith(BLIND)
