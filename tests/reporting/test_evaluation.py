"""The page of an evaluation: what it says, what it refuses, and that no answer of a model can break it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.reporting.evaluation_folder import entry, full_folder, row, write
from tests.reporting.test_html import Page
from vlm.contracts.benchmark import Reply
from vlm.contracts.errors import InputError, RunError
from vlm.evaluation.results import Answered, results
from vlm.evaluation.score import scorer
from vlm.reporting.evaluation import write_results


def page(folder: Path) -> Page:
    return Page(write_results(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Page:
    return page(full_folder(tmp_path_factory.mktemp("evaluation") / "evaluation"))


def test_nothing_in_the_page_is_fetched_from_anywhere(full):
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in full.tags}
    for _, attributes in full.tags:
        for name in ("src", "srcset", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert len(full.all("img")) == 6


def test_tables_and_drawings_can_be_read_without_seeing_them(full):
    assert all(image["alt"] for image in full.all("img"))
    assert all(header["scope"] in ("col", "row") for header in full.all("th"))
    assert all(drawing["aria-label"] for drawing in full.all("svg"))
    names = [attributes["id"] for _, attributes in full.tags if "id" in attributes]
    assert len(names) == len(set(names))
    wanted = {name for _, attributes in full.tags for name in (attributes.get("aria-labelledby") or "").split()}
    links = {str(link["href"])[1:] for link in full.all("a")}
    assert wanted | links <= set(names)


def test_a_score_stands_with_count_interval_best_baseline_paired_difference_and_verdict(full):
    line = full.text[full.text.index("pope (vlmevalkit, n=9000)", full.text.index("Unreadable, cut off")) :]
    assert line.startswith(
        "pope (vlmevalkit, n=9000) accuracy, 500 groups 61.2 % 59.8 to 62.6 % "
        "score 61.2 %, 95 % from 59.8 to 62.6 %; best baseline blank 50.3 % "
        "50.3 % blank +10.9 +9.0 to +12.8 above baseline uses its pictures 0.3 % < 0.1 % cut off"
    )


def test_only_headline_variants_stand_in_the_first_table(full):
    assert "(official," not in full.text[: full.text.index("Other variants")]
    assert "(official," in full.text


def test_points_are_printed_as_points(full):
    assert "704.3 of 2,800 689.0 to 719.9" in full.text
    assert "+4.3 \u22129.0 to +17.5 not above baseline" in full.text


def test_a_share_of_unreadable_answers_above_five_percent_takes_the_place_of_the_headline(full):
    assert "12.4 % could not be read counted as wrong: 12.9 %, 11.0 to 15.0 %" in full.text
    assert "vqav2 (lmms, ocr=rapidocr, limit=1000, seed 0, n=1000)" in full.text


def test_warnings_come_before_the_results(full):
    notice = full.text[: full.text.index("One line a benchmark")]
    for words in (
        "the letter A is answered 1.7 times",
        "unevenly",
    ):
        assert words in notice


def test_bias_checks_are_written_out(full):
    assert "A 52.0 % 31.0 % answered 52.0 %, right 31.0 % 70.0 % n=100" in full.text
    assert "answers read as yes 97.3 %" in full.text
    assert "always yes 50.0 % +11.2 (+9.8 to +12.6)" in full.text
    assert "right under every shift of the options 21.0 %" in full.text
    assert "accuracy with options shown without letters not measured" in full.text


def test_what_the_record_has_no_field_for_is_shown_too(full):
    assert "word as letter 12" in full.text
    assert "score on the rest 47.0 %" in full.text


def test_an_error_shows_the_prompt_the_words_what_was_read_and_the_truth(full):
    assert "Asked Which organ? A. the heart B. the lungs Answered A Read as A Truth B: the lungs" in full.text
    assert "shortened; 50,000 characters in all cut off Read as nothing" in full.text
    assert "<script>alert(1)</script>" in full.text
    assert len(full.text) < 60_000


def test_published_figures_stand_beside_with_their_reading_and_what_keeps_them_apart(full):
    beside = full.text[full.text.index("Beside the published figures") :]
    assert "Keural V0.1 SFT 66.9 % F1, n=1000 66.9 % 65.5 to 68.3 %" in beside
    assert '66.7 % always "yes" not comparable another count (1,000, here 9,000)' in beside
    assert "Equal to a constant answer" in beside
    assert "another subset (questions with a picture, here all)" in beside
    assert "another decoding (likelihood, here greedy)" in beside
    assert "KVL No benchmark" in beside


def test_settings_and_checksums_are_there(full):
    assert "limit all questions" in full.text
    assert "cd" * 32 in full.text


def test_what_a_setting_that_was_not_given_means_is_said(tmp_path):
    own = {"prompt": "{question}", "candidates": None}
    text = page(write(tmp_path, [entry(settings={"token_budget": None, "benchmark": own})])).text
    assert "token budget the model's own" in text
    assert "candidates not set" in text


def test_training_sets_that_cannot_be_known_are_told_plainly(tmp_path):
    reasons = {"unknown": ["x: no data.json", "y: a stream"]}
    text = page(write(tmp_path, [entry(details={"trained_on": reasons})])).text
    assert "Whether the model was trained on these pictures cannot be known: x: no data.json; y: a stream." in text
    assert "Trained on evaluation pictures" not in text


def test_a_result_is_called_biased_only_where_a_flag_says_how(tmp_path):
    bias = {"yes_ratio": 0.99, "flags": ["constant answer"]}
    flagged = entry("scienceqa", settings={"id": "77"}, details={"bias": bias})
    found = page(write(tmp_path, [entry(details={"bias": {"yes_ratio": 0.5, "flags": []}}), flagged]))
    assert found.text.count("biased, see below") == 1
    (link,) = [link["href"] for link in found.all("a") if link["href"].startswith("#bias")]
    assert link[1:] in [heading.get("id") for heading in found.all("h3")]


def test_a_full_disk_leaves_the_page_that_was_there(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = write_results(write(tmp_path, [entry()])).read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"results\.html cannot be written: No space left on device; free some space"):
        write_results(write(tmp_path, [entry(n=7)]))
    assert (tmp_path / "results.html").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_settings_that_set_two_results_of_a_benchmark_apart_are_named(tmp_path):
    second = entry(settings={"id": "77aa", "decoding": "likelihood"})
    assert "decoding= likelihood" in page(write(tmp_path, [entry(), second])).text


def test_pictures_that_are_not_there_leave_their_words(tmp_path):
    kept = [{"benchmark": "pope", "settings": "5e77", "id": "q0", "file": "none.png"}]
    assert "picture cannot be read" in page(write(tmp_path / "a", [entry()], pictures=kept)).text
    assert "no picture kept" in page(write(tmp_path / "b", [entry()])).text


def test_a_record_cannot_show_a_file_from_elsewhere(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "secret.png")
    for file in ("../../secret.png", str(tmp_path / "secret.png")):
        kept = [{"benchmark": "pope", "settings": "5e77", "id": "q0", "file": file}]
        assert not page(write(tmp_path / "run", [entry()], pictures=kept)).all("img")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "\ud83d",
        "\x00\x08\x1b[0m",
        "</bdi></body><!--",
        "{{ 7 * 7 }}",
        "\u202eevil",
        "א" * 3000,
        "🐕" * 3000,
    ],
)
def test_no_answer_breaks_the_page(tmp_path, answer):
    lines = [row(prediction=answer, prompt=answer, id=f"a{answer}", group=answer, reference={"label": answer})]
    found = page(write(tmp_path, [entry(details={"warnings": [answer]})], lines))
    assert found.tags.count(("body", {})) == 1
    assert "Settings" in found.text
    assert "49" not in found.text


def test_figures_that_are_not_defined_are_called_so(tmp_path):
    nothing = entry(
        score=None, interval=None, baselines={"empty": {"score": float("nan")}}, verdict="not above baseline"
    )
    assert "undefined" in page(write(tmp_path, [nothing])).text


def test_what_is_not_of_the_form_is_refused_by_file_and_place(tmp_path):
    for number, (entries, rows, words) in enumerate(
        [
            ([entry(verdict="great")], None, "results.json: entry 0.verdict"),
            ([entry(), entry()], None, "stands there twice"),
            ([entry(headline=False)], None, "no headline"),
            ([], None, "holds no result"),
            ({"a": 1}, None, "is no list of results"),
            ([entry()], [row(), {"id": 1}], "predictions.jsonl:2: lacks benchmark, prediction"),
        ]
    ):
        with pytest.raises(InputError, match=words):
            write_results(write(tmp_path / str(number), entries, rows))
    with pytest.raises(InputError, match=r"results\.json: cannot be read"):
        write_results(tmp_path)


def test_half_a_line_of_predictions_is_refused(tmp_path):
    folder = write(tmp_path, [entry()])
    (folder / "predictions.jsonl").write_text(json.dumps(row()) + '\n{"benchmark": ')
    with pytest.raises(InputError, match=r"predictions\.jsonl:2: is no JSON"):
        write_results(folder)


def test_answers_without_scores_of_their_own_still_have_a_page(tmp_path):
    """As other programs write them, in a file of another name."""
    folder = write(tmp_path, [entry(settings={"id": ""})], [])
    (tmp_path / "theirs.jsonl").write_text(json.dumps({"benchmark": "pope", "id": "q", "prediction": "yes"}) + "\n")
    text = write_results(folder, tmp_path / "theirs.jsonl").read_text(encoding="utf-8")
    assert "carry no scores of single answers" in text


def test_a_warning_about_one_split_stays_with_that_split(tmp_path):
    parts = [entry(), entry(split="category=random", details={"warnings": ["only 4 independent groups"]})]
    text = page(write(tmp_path, parts)).text
    assert text.count("only 4 independent groups") == 1
    assert text.index("only 4 independent groups") > text.index("other result")


def test_what_scoring_writes_is_what_the_page_reads(tmp_path):
    gold = [{"question_id": n, "category": "random", "label": ("yes", "no")[n % 2]} for n in range(40)]
    ids = [str(n) for n in range(40)]
    replies = {name: Reply(name, "Yes") for name in ids}
    own = {"name": "pope", "prompt": "{question}", "reader": {"folder": "x"}}
    given = Answered(
        "pope", scorer("pope"), ["vlmevalkit", "official"], ["category"], ids, [str(n // 2) for n in range(40)], gold,
        {"seen": replies, "blank": replies}, {"id": "5e77", "model": "m", "benchmark": own},
    )  # fmt: skip
    text = page(write(tmp_path, results(given), [row(n, reference=one) for n, one in enumerate(gold)])).text
    assert "pope (vlmevalkit, n=40) accuracy, 20 groups 50.0 %" in text
    assert "not above baseline" in text
    assert "not shown to use its pictures" in text
    assert "constant answer: yes in 100% of the questions" in text


def test_a_long_file_of_predictions_is_streamed(tmp_path):
    """214,354 rows, as many as VQAv2 has for validation, in less than 300 MB more than the interpreter's own."""
    write(tmp_path, [entry("vqav2", n=214354)])
    line = row(benchmark="vqav2", prediction="word " * 20, reference={"answers": ["yes"] * 10})
    with (tmp_path / "predictions.jsonl").open("w") as stream:
        for number in range(214_354):
            stream.write(json.dumps({**line, "id": str(number), "group": str(number // 5)}) + "\n")
    code = (
        "import resource, sys; from pathlib import Path; from vlm.reporting.evaluation import write_results\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); write_results(Path(sys.argv[1])); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300_000  # kilobytes
