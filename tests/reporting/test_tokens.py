"""The page about tokens: boxes that cover the picture, saliency, counts, seconds, and only scores that were measured."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.data_prep.small_splits import photograph, png
from tests.evaluation.towers import captioned, two_towers
from tests.models.speakers import speaker
from tests.reporting.evaluation_folder import entry
from tests.reporting.test_html import Page
from vlm.build import compose
from vlm.contracts.errors import InputError
from vlm.contracts.pages import TokensConfig
from vlm.held_out import given_pictures, held_out_pictures
from vlm.look import look
from vlm.reporting.token_pictures import boxes, heat_map
from vlm.reporting.token_records import Cut, Looked, Scores, Seen
from vlm.reporting.token_scores import measured
from vlm.reporting.tokens import render, seconds
from vlm.training.weights import save_model

QUARTERS = np.array([[0.25, 0.25, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5], [0.25, 0.75, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])
CUT = Cut(QUARTERS, np.array([0, 1, 1, 2]), np.array([0.0, 0.2, 0.4, 1.0]))
VIEW = np.zeros((40, 40, 3), dtype=np.uint8)
PAGE = Looked(
    model="runs/a/0123", encoder="Pyramid", side=(40, 40), own_side=(40, 40), own_budget=4,
    pictures=[Seen("a <b>cat</b>.png", VIEW, [CUT])], of=9, source="held-out rows", times={4: [0.002, 0.001, 0.004]},
    machine="a processor, 1 thread", on_cpu=True, scores=[], reachable=[4], benchmark="small_vqa",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two towers, 8 x 8 cells, with a held-out set of nine pictures."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    save_model(two_towers(), folder / "model")
    (folder / "status.json").write_text('{"state": "finished"}')
    captioned(folder.parent / "data/pictures/val", [f"picture {number}" for number in range(9)])
    held = {"train": {}, "validate": {"pictures": {"split": "val"}}, "test": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "towers", "data": held}))
    return folder


def page_of(run: Path, *words: str) -> Page:
    more = [f"paths.data={run.parent / 'data'}", "repeats=3", "device=cpu", f"out={run.parent / 'page.html'}"]
    config = compose([f"model={run}", *more, *words], "tokens", TokensConfig).config
    return Page(look(config).read_text("utf-8"))


def test_a_page_shows_every_picture_at_every_budget(run):
    page = page_of(run, "budgets=[4,16,64]", "pictures=3")
    drawn = [svg for svg in page.all("svg") if (svg.get("class") or "").startswith("boxes")]
    assert len(drawn) == 9
    assert [svg["aria-label"].split(": ")[1].split(" tokens")[0] for svg in drawn] == ["4", "16", "64"] * 3
    assert len([image for image in page.all("img") if image.get("class") == "heat"]) == 9
    assert len(page.all("image")) == 3  # once in the page, referred to by each budget
    assert "3 of 9 pictures" in page.text
    assert "CPU seconds over all threads of the encoder alone for one picture, median of 3 passes" in page.text


def test_the_boxes_are_exactly_as_many_as_the_budget_and_fill_the_picture(run):
    html = (page_of(run, "budgets=[16]", "pictures=1"), (run.parent / "page.html").read_text())[1]
    svg = ElementTree.fromstring(re.search(r'<svg class="boxes.*?</svg>', html, re.S)[0])
    paths = [node.get("d") for node in svg if node.tag == "path" and node.get("class") != "edge"]
    found = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)", "".join(paths))
    assert len(found) == 16
    covered = np.zeros((32, 32), dtype=int)
    for x, y, width, height in (map(float, numbers) for numbers in found):
        covered[round(y) : round(y + height), round(x) : round(x + width)] += 1
    assert (covered == 1).all()


def test_without_budgets_the_usual_ones_that_are_legal_are_shown(run):
    assert "cut into 16, 64 tokens" in page_of(run, "pictures=1").text


def test_views_of_another_size_are_told(run):
    page = page_of(run, "size=128", "budgets=[64,256,1024]", "pictures=1")
    assert "These views have 128" in page.text
    assert page.text.count("32.") == 1  # pixels of its own
    assert "token_budget=64" in page.text  # all that an evaluation could ask with
    assert "token_budget=64,256" not in page.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budgets=[17]"], "budgets: 17: .*choose token_budget=16 or 19"),
        (["budgets=[5000]"], "budgets: 5000: .*choose token_budget=61 or 64"),
        (["size=50"], "both sides must be multiples of 8 .*=48 or 56"),
        (["images=/nowhere/cat.jpg"], "images: /nowhere/cat.jpg: the picture cannot be read"),
    ],
)
def test_what_the_encoder_cannot_have_is_refused(run, words, said):
    with pytest.raises(InputError, match=said):
        page_of(run, *words)


def test_an_encoder_that_does_not_tell_where_its_tokens_lie_is_refused(tmp_path):
    save_model(speaker("gpt2_nano", tmp_path), tmp_path / "model")
    (tmp_path / "a.png").write_bytes(png(photograph(0, 40, 30)))
    words = [f"model={tmp_path / 'model'}", f"images={tmp_path / 'a.png'}"]
    with pytest.raises(InputError, match="does not tell where its tokens lie"):
        look(compose(words, "tokens", TokensConfig).config)
    with pytest.raises(InputError, match=r"budgets: this encoder always gives \d+ tokens; leave budgets out"):
        look(compose([*words, "budgets=[64]"], "tokens", TokensConfig).config)


def test_pictures_of_a_folder_are_taken_at_even_distances(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(png(photograph(number, 20, 20)))
    found = given_pictures(str(tmp_path), 2)
    assert [name for name, _ in found.pictures] == ["2.png", "7.png"]
    assert found.count == 10
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        given_pictures(str(tmp_path / "empty"), 2)


def test_held_out_pictures_are_different_and_a_folder_without_a_run_is_refused(run, tmp_path):
    found = held_out_pictures(run, str(run.parent / "data"), 24)
    assert len({data for _, data in found.pictures}) == 9
    assert found.source == "held-out rows of pictures (9 rows)"
    with pytest.raises(InputError, match="no run folder, so its held-out pictures are not known; give images=DIR"):
        held_out_pictures(tmp_path, "data", 3)


def test_saliency_is_painted_where_its_box_lies():
    uri = heat_map(CUT, VIEW, 0.0, 1.0)
    painted = np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert painted.shape[:2] == (2, 2)
    light = painted.astype(int).sum(2)
    assert light[0, 0] < light[0, 1] < light[1, 0] < light[1, 1]


def test_every_outline_has_a_dark_edge_below_it_so_that_it_shows_on_any_picture():
    svg = ElementTree.fromstring(boxes(CUT, VIEW, "view-0", "words"))
    kinds = [node.get("class") for node in svg if node.tag == "path"]
    assert kinds == ["edge"] * 3 + ["level-2", "level-1", "level-0"]
    assert svg.get("aria-label") == "words"


def test_counts_and_areas_of_levels_stand_beside_each_picture():
    page = Page(render(PAGE))
    assert "global 1 25.0 % of the area region 2 50.0 % of the area detail 1 25.0 % of the area" in page.text
    assert "a <b>cat</b>.png" in page.text  # as text


def test_nothing_in_the_page_is_fetched_from_anywhere():
    html = render(PAGE)
    page = Page(html)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "url(" not in html


def test_what_was_not_measured_is_not_drawn_and_the_command_for_it_is_told():
    text = Page(render(PAGE)).text
    assert "No benchmark: not measured. This measures it:" in text
    assert "python -m experiments.evaluate model=runs/a/0123 benchmarks=[small_vqa] token_budget=4" in text
    some = Scores("small_vqa", "small_vqa (lmms, n=60)", "accuracy", 60, 1.0, {4: (0.5, (0.4, 0.6))}, None, 60)
    two = replace(PAGE, times={4: [0.001] * 3, 16: [0.002] * 3}, scores=[some], reachable=[4, 16])
    two = replace(two, pictures=[Seen("a", VIEW, [CUT, CUT])])
    text = Page(render(two)).text
    assert "50.0 % 40.0 to 60.0 %" in text
    assert "small_vqa (lmms, n=60) at 16 tokens: not measured." in text
    assert "benchmarks=[small_vqa] limit=60 token_budget=16" in text


def test_scores_are_those_of_these_weights_one_line_for_all_budgets(tmp_path):
    weights = "0123"
    entries = [
        entry(score=0.5, settings={"id": "a", "weights": weights, "token_budget": 4}),
        entry(score=0.6, settings={"id": "b", "weights": weights, "token_budget": None}),
        entry(score=0.9, settings={"id": "c", "weights": "others", "token_budget": 64}),
        entry(score=0.1, split="category=random", settings={"id": "a", "weights": weights, "token_budget": 4}),
    ]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/results.json").write_text(json.dumps(entries))
    rows = [{"step": 5, "val/retrieval_r1_16": 0.1, "val/chance_r1": 0.02}, {"step": 9, "val/retrieval_r1_16": 0.3}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark, logged = measured(tmp_path, weights, own_budget=16)
    assert benchmark.points == {4: (0.5, (0.598, 0.626)), 16: (0.6, (0.598, 0.626))}
    assert logged.points == {16: (0.3, None)}
    assert logged.chance is None


def test_scores_are_drawn_against_the_budget_with_intervals_and_chance_from_two_points_on():
    some = Scores("small_vqa", "small_vqa (lmms, n=60)", "accuracy", 60, 1.0, {4: (0.5, (0.4, 0.6))}, 0.1)
    both = replace(some, points={4: (0.5, (0.4, 0.6)), 16: (0.7, None)})
    one, two = (render(replace(PAGE, scores=[scores])) for scores in (some, both))
    assert one.count('<circle class="dot-0"') == 1  # seconds alone
    assert two.count('<circle class="dot-0"') == 3
    assert two.count('class="spread"') == 2  # one interval, one range of seconds
    assert "chance 10.0 %" in Page(two).text
    assert "50.0 % with 4 tokens; 70.0 % with 16 tokens" in Page(two).text


@pytest.mark.parametrize(("value", "words"), [(0.00124, "1.24 ms"), (2.5, "2.5 s")])
def test_seconds_are_told_with_their_unit(value, words):
    assert seconds(value) == words
