"""Published figures: what stands in the file, and that another form of it is refused."""

from __future__ import annotations

import pytest
import yaml

from vlm.contracts.errors import InputError
from vlm.evaluation.published import FILE, published, silent

SYSTEMS = {"Keural V0.1", "fVLM-1.7B", "fVLM-135M", "purevlm"}


def figure(benchmark: str, system: str, stage: str, metric: str | None = None):
    (found,) = [
        one
        for one in published(benchmark)
        if (one.system, one.stage, metric or one.metric) == (system, stage, one.metric)
    ]
    return found


def test_every_figure_has_a_source_and_a_reading():
    names = {one["benchmark"] for one in yaml.safe_load(FILE.read_text(encoding="utf-8"))["figures"]}
    figures = [one for name in names for one in published(name)]
    assert {one.system for one in figures} == SYSTEMS
    assert all(one.source and one.reading.endswith((".", ").")) and one.measures for one in figures)


@pytest.mark.parametrize(
    ("benchmark", "value", "chance"),
    [("pope", 0.669, 2 / 3), ("mme", 704.3, 700), ("scienceqa", 0.397, 0.3983)],
)
def test_figures_that_equal_an_answer_without_a_model_say_so(benchmark, value, chance):
    """Keural's SFT model: constant yes, constant answer, random option."""
    found = figure(benchmark, "Keural V0.1", "SFT")
    assert found.value == value
    assert found.chance.value == pytest.approx(chance, abs=1e-4)
    assert "Equal to" in found.reading


@pytest.mark.parametrize(
    ("benchmark", "questions", "larger", "smaller"),
    [
        ("mvbench", 3800, (0.308, 0.299, 0.299), (0.274, 0.280, 0.279)),
        ("videomme", 2700, (0.305, 0.282, 0.304), (0.262, 0.295, 0.287)),
        ("scienceqa", 2017, (0.490, 0.438, 0.466), (0.364, 0.356, 0.354)),
    ],
)
def test_the_modes_of_the_foveated_models_are_complete(benchmark, questions, larger, smaller):
    modes = ("coarse_only", "coarse_fine", "autoregressive")
    for system, values in (("fVLM-1.7B", larger), ("fVLM-135M", smaller)):
        found = [figure(benchmark, system, mode) for mode in modes]
        assert tuple(one.value for one in found) == values
        assert {one.questions for one in found} == {questions}


@pytest.mark.parametrize("name", ["mvbench", "videomme", "scienceqa"])
def test_a_reading_is_not_above_chance_exactly_where_the_interval_is_not(name):
    for one in published(name):
        low, high = one.interval
        apart = "above chance" if low > one.chance.value else "Below" if high < one.chance.value else "equal"
        words = one.reading.replace("Not above chance", "Equal to chance").replace(
            "Above a random option", "above chance"
        )
        assert apart.casefold() in words.casefold(), one


def test_twenty_pictures_have_a_wide_interval():
    assert figure("digit_names", "purevlm", "tensor-product attention").interval == pytest.approx(
        (0.764, 0.991), abs=1e-3
    )


def test_a_score_that_is_no_share_of_right_answers_has_no_interval_of_its_count():
    assert figure("pope", "Keural V0.1", "SFT").interval is None


def test_a_part_that_is_a_benchmark_of_its_own_is_compared_as_a_whole():
    assert [(one.split, one.questions) for one in published("scienceqa_img")] == [("all", 2017)] * 6


def test_a_benchmark_without_figures_has_none():
    assert published("docvqa") == []


def test_systems_without_any_figure_are_named():
    assert {one.system for one in silent()} == {"SupraVL-Nano", "KVL"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": 1.0}, "figures.0.values"),
        ({"value": "0.5"}, "figures.0.value"),
        ({"value": 43.6}, "not within 0..1"),
        ({"questions": 0}, "figures.0.questions"),
        ({"chance": {"name": "yes", "value": 50.0}}, "figures.0.chance"),
        ({"value": float("nan")}, "value"),
    ],
)
def test_a_figure_of_another_form_is_refused_by_its_key(tmp_path, change, words):
    good = {
        "benchmark": "b", "system": "s", "stage": "t", "metric": "m", "measures": ["m"], "value": 0.5, "reading": "r.",
        "source": "c",
    }  # fmt: skip
    file = tmp_path / "published.yaml"
    file.write_text(yaml.safe_dump({"figures": [{**good, **change}], "silent": []}))
    with pytest.raises(InputError, match=words):
        published("b", file)


def test_a_figure_that_stands_twice_and_a_file_that_is_no_yaml_are_refused(tmp_path):
    (tmp_path / "a").write_text("figures: [")
    with pytest.raises(InputError, match="no YAML"):
        published("b", tmp_path / "a")
    with pytest.raises(InputError, match="cannot be read"):
        published("b", tmp_path / "none")
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    (tmp_path / "b").write_text(yaml.safe_dump({**content, "figures": content["figures"][:1] * 2}))
    with pytest.raises(InputError, match="twice"):
        published("b", tmp_path / "b")
