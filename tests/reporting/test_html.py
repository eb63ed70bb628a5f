from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from vlm.contracts.errors import RunError
from vlm.reporting.html import render, write_report
from vlm.reporting.runs import find_runs


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.hidden = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden = tag == "style"

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        self.words += [] if self.hidden else data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folders) -> Page:
    return Page(render(find_runs(folders.root), "runs"))


@pytest.fixture
def every_kind(folders):
    """Finished runs of two systems, and one of each way in which a run is not finished."""
    score = {
        "test/exact_match": 0.972,
        "test/exact_match_low": 0.969,
        "test/exact_match_high": 0.975,
        "test/constant": 0.1135,
    }
    folders.run(identity="finished", samples=[("two", "two"), ("six", "five")], status={"metrics": score})
    folders.run(
        "captioner",
        samples=[("a <b>red</b> ball", "ball")],
        status={"warnings": ["this model does not use its pictures"]},
    )
    folders.run(identity="failed", status={"state": "failed", "step": 7, "error": "step 7: the loss is not a number"})
    folders.run(
        identity="stopped", status={"state": "stopped", "step": 40}, command="python -m experiments.train seed=4"
    )
    folders.run(identity="running", status={"state": "running", "step": 60})
    folders.write(folders.run(identity="corrupt") / "status.json", "{")
    return folders


def test_nothing_in_the_page_is_fetched_from_anywhere(every_kind):
    page = page_of(every_kind)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    html = render(find_runs(every_kind.root), "runs")
    assert "@import" not in html
    assert "url(" not in html


def test_every_picture_has_words_and_every_header_a_scope(every_kind):
    page = page_of(every_kind)
    assert len(page.all("img")) == 3
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("th")
    assert all(header["scope"] in ("col", "row") for header in page.all("th"))
    assert {"title", "desc"} <= {tag for tag, _ in page.tags}


def test_identifiers_are_unique_and_every_label_exists(every_kind):
    page = page_of(every_kind)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    wanted = {name for _, attributes in page.tags for name in (attributes.get("aria-labelledby") or "").split()}
    assert wanted <= set(names)


def test_a_score_stands_with_its_interval_and_the_constant_answer(every_kind):
    text = page_of(every_kind).text
    assert "97.2 % 96.9 to 97.5 % constant answer 11.3 %" in text


def test_warnings_come_before_the_results(every_kind):
    text = page_of(every_kind).text
    assert text.index("this model does not use its pictures") < text.index("Results")


def test_what_is_not_finished_stands_with_its_error_and_the_command_to_go_on(every_kind):
    text = page_of(every_kind).text
    unfinished = text[text.index("Not finished") : text.index("Curves")]
    for words in (
        "step 7: the loss is not a number",
        "step 40 of 100",
        "Go on with python -m experiments.train seed=4",
        "status.json: cannot be read",
        "interrupted without notice",
    ):
        assert words in unfinished.replace("Step", "step")


def test_the_models_words_are_shown_as_text(every_kind):
    page = page_of(every_kind)
    assert "a <b>red</b> ball" in page.text
    assert "six ✗ five" in page.text


def test_data_is_named_with_its_licence(every_kind):
    assert "mnist train 59,000 abababababab CC-BY-SA-3.0" in page_of(every_kind).text


def test_what_was_skipped_and_delivered_stands_with_its_run(folders):
    delivered = {"mnist": {"samples": 60, "share": 0.6}, "text": {"samples": 40, "share": 0.4}}
    data = {"samples": 100, "tokens": 3400, "rows_read": 103, "skipped": 3, "cut": 2, "delivered": delivered}
    reasons = {"media_truncated": 2, "text_long": 1}
    folders.run(status={"data": {**data, "reasons": reasons}}, data={"sets": {}, "asked": {"mnist": 0.5, "text": 0.5}})
    text = page_of(folders).text
    assert "Read 100 samples, 3,400 tokens · skipped 3 of 103 rows (media_truncated 2, text_long 1)" in text
    assert "2 answers cut to fit · mnist 60.0 % of samples, asked 50.0 % · text 40.0 % of samples" in text


def test_every_command_and_version_is_there(every_kind):
    text = page_of(every_kind).text
    assert text.count("python -m experiments.train experiment=captioner") == 1
    assert "packages.numpy 2.4.6" in text


def test_a_folder_of_broken_runs_still_has_a_page(folders):
    folder = folders.run(samples=[("a", "b")])
    for file in ("status.json", "config.yaml", "versions.json", "data.json", "metrics.jsonl", "samples/samples.jsonl"):
        folders.write(folder / file, "[{")
    text = page_of(folders).text
    assert "1 unreadable" in text
    assert "data.json: cannot be read" in text


def test_runs_without_any_metric_have_a_page(folders):
    folders.run(status={"metrics": {}, "seconds": None}, rows=[])
    assert "not measured" in page_of(folders).text


def test_a_picture_that_cannot_be_read_leaves_its_words(folders):
    folder = folders.run(samples=[("two", "five")])
    folders.write(folder / "samples" / "0000.png", "no picture")
    page = page_of(folders)
    assert "picture cannot be read" in page.text
    assert not page.all("img")


def test_a_record_cannot_show_a_file_from_elsewhere(folders, tmp_path):
    folder = folders.run(samples=[("two", "five")])
    (tmp_path / "secret.png").write_bytes((folder / "samples" / "0000.png").read_bytes())
    row = {"key": "k", "image": str(tmp_path / "secret.png"), "answer": "a", "reference": "b"}
    folders.write(folder / "samples" / "samples.jsonl", json.dumps(row))
    assert not page_of(folders).all("img")


def test_the_page_is_written_to_a_new_folder_and_replaced(folders, tmp_path):
    folders.run()
    out = tmp_path / "new" / "page.html"
    assert write_report(folders.root, out) == out
    write_report(folders.root, out)
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_a_place_that_cannot_be_written_is_told(folders, tmp_path):
    folders.run()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written: .*; choose another file with out=FILE"):
        write_report(folders.root, tmp_path / "file" / "page.html")


def test_the_command_prints_the_path_of_the_page(folders, run_command):
    folders.run()
    done = run_command("experiments.report", f"runs={folders.root}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(folders.root / "report.html")


def test_the_command_refuses_a_folder_without_runs(tmp_path, run_command):
    done = run_command("experiments.report", f"runs={tmp_path / 'none'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no folder" in done.stderr
