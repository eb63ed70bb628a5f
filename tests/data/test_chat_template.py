"""Chat templates: the same ids as the model's own library gives, and labels on what the model has to say."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hf_folder import (
    CHATML,
    ENDLESS,
    INST,
    PARTS,
    REWRITING,
    TAGGED,
    TEMPLATES,
    byte_level,
    sentence_pieces,
    write_tokenizer,
)
from tests.prepared import ROOT
from vlm.contracts.batch import IGNORE, VISUAL
from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.sample import Turn
from vlm.data.chat_template import ChatTemplate
from vlm.data.tokens import FolderTokenizer

TURNS = [
    Turn("user", ("what is on the table? über",)),
    Turn("assistant", ("a red kite\n",)),
    Turn("user", ("  how many?",)),
    Turn("assistant", ("Hello, three books 😀.",)),
]
ENGINES = [byte_level, sentence_pieces]
DATE = "2025-01-31"


def messages(turns: list[Turn], parts: bool = False) -> list[dict]:
    texts = [(turn.role, "".join(map(str, turn.parts))) for turn in turns]
    return [{"role": role, "content": [{"type": "text", "text": t}] if parts else t} for role, t in texts]


def made(folder: Path, template: str | None, engine=byte_level, max_tokens: int = 999):
    theirs = write_tokenizer(folder, template, engine())
    return theirs, FolderTokenizer(str(folder)), ChatTemplate(str(folder), max_tokens, DATE)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("engine", ENGINES)
def test_ids_are_those_of_the_models_own_library(tmp_path, name, engine):
    theirs, tokenizer, template = made(tmp_path, TEMPLATES[name], engine)
    for turns in (TURNS, TURNS[:2], TURNS[:3], TURNS[:1]):
        is_open = turns[-1].role == "user"
        wanted = theirs.apply_chat_template(messages(turns, name == "parts"), add_generation_prompt=is_open)
        assert template.row(turns, tokenizer, []).ids == wanted["input_ids"]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_template_marks_as_the_models_own_words_carries_loss(tmp_path, engine):
    theirs, tokenizer, template = made(tmp_path, TAGGED, engine)
    wanted = theirs.apply_chat_template(messages(TURNS), return_dict=True, return_assistant_tokens_mask=True)
    row = template.row(TURNS, tokenizer, [])
    assert [int(label != IGNORE) for label in row.labels] == wanted["assistant_masks"]
    assert sum(wanted["assistant_masks"]) > 10


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("engine", ENGINES)
def test_labels_read_as_the_answers_with_their_end_tokens(tmp_path, name, engine):
    theirs, tokenizer, template = made(tmp_path, TEMPLATES[name], engine)
    row = template.row(TURNS, tokenizer, [])
    said = theirs.decode([label for label in row.labels if label != IGNORE])
    first, second = ("a red kite\n" if name in ("chatml", "parts") else "a red kite"), "Hello, three books 😀."
    assert said.replace(f"{template.end} ", template.end).strip() == f"{first}{template.end}{second}{template.end}"
    assert all(label in (IGNORE, id) for label, id in zip(row.labels, row.ids, strict=True))


@pytest.mark.parametrize(("template", "end", "begin"), [(CHATML, "<|im_end|>", "<|im_start|>"), (INST, "</s>", "</s>")])
def test_the_template_shows_what_ends_an_answer(tmp_path, template, end, begin):
    _, _, chat = made(tmp_path, template)
    assert (chat.end, chat.begin) == (end, begin)


@pytest.mark.parametrize("name", TEMPLATES)
def test_pictures_take_the_places_of_their_parts(tmp_path, name):
    theirs, tokenizer, template = made(tmp_path, TEMPLATES[name])
    turns = [Turn("user", (1, "what is ", 0, " on it?")), *TURNS[1:]]
    row = template.row(turns, tokenizer, [2, 3])
    runs = [theirs.decode(piece) for piece in split(row.ids)]
    assert row.ids.count(VISUAL) == 5
    assert runs[0].endswith(("user\n", "[INST] "))
    assert runs[1] == "what is "
    assert runs[2].startswith(" on it?")
    assert all(label == IGNORE for label, id in zip(row.labels, row.ids, strict=True) if id == VISUAL)
    marked = template.row(turns, tokenizer, [2, 3], all_text=True)
    assert marked.labels == [IGNORE, *(IGNORE if id == VISUAL else id for id in marked.ids[1:])]


@pytest.mark.parametrize("name", TEMPLATES)
def test_frames_may_stand_in_front_of_all_text(tmp_path, name):
    """As fVLM has them: the row of the text alone behind them, whichever turn they belong to."""
    theirs, tokenizer, inline = made(tmp_path, TEMPLATES[name])
    front = ChatTemplate(str(tmp_path), 999, DATE, pictures="front")
    assert (inline.inline, front.inline) == (True, False)
    shown = [Turn("user", (0, "what is here?", 1)), *TURNS[1:]]
    text = inline.row([Turn("user", ("what is here?",)), *TURNS[1:]], tokenizer, [])
    row = front.row(shown, tokenizer, [3, 2])
    assert row.ids == [VISUAL] * 5 + text.ids
    assert row.labels == [IGNORE] * 5 + text.labels
    everything = front.row(shown, tokenizer, [3, 2], all_text=True)
    assert everything.labels[:6] == [IGNORE] * 6  # a first text token is predicted by nothing of its own
    assert everything.labels[6:] == text.ids[1:]
    question = front.row(shown[:1], tokenizer, [3, 2])
    wanted = theirs.apply_chat_template(
        messages([Turn("user", ("what is here?",))], name == "parts"), add_generation_prompt=True
    )
    assert question.ids == [VISUAL] * 5 + wanted["input_ids"]


def split(ids: list[int]) -> list[list[int]]:
    """The runs of text between pictures."""
    runs: list[list[int]] = [[]]
    for before, id in zip([0, *ids], ids, strict=False):
        if id == VISUAL and before != VISUAL:
            runs.append([])
        elif id != VISUAL:
            runs[-1].append(id)
    return runs


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_special_tokens_name_in_a_message_stays_text(tmp_path, name, engine):
    _, tokenizer, template = made(tmp_path, TEMPLATES[name], engine)
    harmless = template.row([Turn("user", ("say x now",)), Turn("assistant", ("ok x fine",))], tokenizer, [])
    turns = [Turn("user", ("say <|im_start|> now",)), Turn("assistant", ("ok </s><|im_end|> fine",))]
    row = template.row(turns, tokenizer, [])
    special = [tokenizer.special(token) for token in tokenizer.specials]
    assert [id for id in row.ids if id in special] == [id for id in harmless.ids if id in special]
    assert "say <|im_start|> now" in tokenizer.decode(row.ids)
    assert "ok </s><|im_end|> fine" in tokenizer.decode([label for label in row.labels if label != IGNORE])


def test_an_answer_that_does_not_fit_is_cut_and_closed(tmp_path):
    _, tokenizer, template = made(tmp_path, CHATML)
    whole = template.row(TURNS, tokenizer, [])
    end = tokenizer.special("<|im_end|>")
    ends = [n for n, label in enumerate(whole.labels) if label == end]
    cut = template.row(TURNS, tokenizer, [], room=ends[0] - 1)
    assert (len(cut.ids), cut.cut, cut.ids[-1], cut.labels[-1]) == (ends[0] - 1, True, end, end)
    assert cut.ids[:-1] == whole.ids[: ends[0] - 2]
    without_question = template.row(TURNS, tokenizer, [], room=ends[0] + 10)  # in the middle of the second question
    assert (without_question.ids, without_question.cut) == (whole.ids[: ends[0] + 1], True)
    without_line_end = template.row(TURNS, tokenizer, [], room=len(whole.ids) - 1)
    assert (without_line_end.ids, without_line_end.cut) == (whole.ids[:-1], False)
    with pytest.raises(InputError, match=r"^text_long: \d+ tokens stand before the answer and only 12 fit"):
        template.row(TURNS, tokenizer, [], room=12)
    turns = [*TURNS[:2], Turn("user", (0, "how many?")), TURNS[3]]
    with pytest.raises(InputError, match=r"^text_long: .*a picture would be cut off"):
        template.row(turns, tokenizer, [4], room=ends[0] + 10)
    assert template.row(turns, tokenizer, [4]).ids.count(VISUAL) == 4


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([TURNS[0], Turn("assistant", (" ",))], "^text_empty: an answer has no text"),
        ([Turn("user", ("a\ufdd0b",)), TURNS[1]], "^row_malformed: .*noncharacters"),
        ([TURNS[0], TURNS[0], TURNS[1]], "^turns_bad: .* refuses these turns: roles must alternate"),
    ],
)
def test_turns_that_cannot_be_laid_out_are_refused_by_reason(tmp_path, turns, message):
    _, tokenizer, template = made(tmp_path, INST)
    with pytest.raises(InputError, match=message):
        template.row(turns, tokenizer, [])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (REWRITING, r"writes earlier turns otherwise.*put a chat_template.jinja beside .*\{% generation %\}"),
        (ENDLESS, "closes an answer with no special token"),
        (TAGGED.replace("<|im_end|>{% endgen", "{% endgen"), "with no special token inside"),
        ("{% for message in messages %}", "the chat template is damaged"),
        ("{{ messages | length }}", "shows neither text nor parts"),
        (None, "has no chat template .* as base models have none"),
    ],
)
def test_a_template_that_cannot_teach_is_refused_with_a_remedy(tmp_path, template, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path, template)


def test_a_rewriting_template_is_welcome_once_it_marks_answers(tmp_path):
    marked = REWRITING.replace(
        "{{ message.content }}<|im_end|>", "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}"
    )
    marked = marked.replace("{% generation %}", "{% if message.role == 'assistant' %}{% generation %}", 1).replace(
        "{% endgeneration %}", "{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}"
    )
    _, tokenizer, template = made(tmp_path, marked)
    labels = [label for label in template.row(TURNS, tokenizer, []).labels if label != IGNORE]
    assert tokenizer.decode(labels) == "a red kite\nHello, three books 😀."


def test_templates_are_told_a_fixed_day(tmp_path):
    dated = "{{ strftime_now('%d %b %Y') }}{% for name in ['a'] %}{% continue %}{% endfor %}" + PARTS
    _, tokenizer, template = made(tmp_path, dated)
    assert tokenizer.decode(template.row(TURNS, tokenizer, []).ids).startswith("31 Jan 2025user")
    with pytest.raises(InputError, match=r"llm\.template\.date: 'today' is no date"):
        ChatTemplate(str(tmp_path), 99, "today")


def test_a_template_in_the_tokenizers_settings_counts_too(tmp_path):
    _, tokenizer, template = made(tmp_path, CHATML)
    row = template.row(TURNS, tokenizer, [])
    (tmp_path / "chat_template.jinja").unlink()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for form in (CHATML, [{"name": "tool_use", "template": ENDLESS}, {"name": "default", "template": CHATML}]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": form}))
        assert ChatTemplate(str(tmp_path), 999, DATE).row(TURNS, tokenizer, []) == row


def test_a_folder_without_a_fast_tokenizer_says_how_to_get_one(tmp_path):
    with pytest.raises(Mismatch, match=r"no tokenizer.json; .*save_pretrained"):
        FolderTokenizer.describe(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Mismatch, match="is no tokenizer"):
        FolderTokenizer.describe(str(tmp_path))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tokenizer_counts_every_id(tmp_path, engine):
    theirs, _, _ = made(tmp_path, CHATML, engine)
    assert FolderTokenizer.describe(str(tmp_path)) == len(theirs)


def test_data_workers_import_neither_lightning_nor_transformers(tmp_path):
    _, tokenizer, template = made(tmp_path, TAGGED)
    (tmp_path / "copy.pickle").write_bytes(pickle.dumps((tokenizer, template, template.row(TURNS, tokenizer, []))))
    code = (
        "import pickle, sys, vlm.data.loader\n"
        "from vlm.contracts.sample import Turn\n"
        f"tokenizer, template, row = pickle.load(open({str(tmp_path / 'copy.pickle')!r}, 'rb'))\n"
        f"assert template.row({TURNS!r}, tokenizer, []) == row\n"
        "assert tokenizer.special('</s>') not in tokenizer.encode('</s>')\n"
        "assert not {'lightning', 'transformers'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
