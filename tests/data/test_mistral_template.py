"""The template of Mistral-7B-Instruct-v0.3, as its tokenizer_config.json holds it: answers end with </s>, and that is learned."""

from __future__ import annotations

import json

import pytest

from tests.hf_folder import sentence_pieces, write_tokenizer
from vlm.contracts.batch import IGNORE, VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn
from vlm.data.chat_template import ChatTemplate
from vlm.data.tokens import FolderTokenizer

FIRST = (  # as first published
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LATER = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- This block checks for alternating user/assistant messages, skipping tool calling messages #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] " + tools|tojson + "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""


@pytest.fixture(params=[FIRST, LATER], ids=["first", "later"])
def folder(request, tmp_path):
    engine = sentence_pieces()
    engine.add_special_tokens(["[INST]", "[/INST]"])
    write_tokenizer(tmp_path, None, engine)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"add_bos_token": True, "add_eos_token": False, "chat_template": request.param, "legacy": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def row_of(folder, *turns: Turn):
    tokenizer = FolderTokenizer(str(folder))
    template = ChatTemplate(str(folder), 256, "2025-01-01")
    return tokenizer, template, template.row(turns, tokenizer, [3])


def test_a_picture_a_question_an_answer_and_its_end_stand_in_order(folder):
    tokenizer, template, row = row_of(
        folder, Turn("user", (0, "\nwhat is on the table?")), Turn("assistant", ("a red kite",))
    )
    assert (template.end, template.begin) == ("</s>", "[INST]")
    special = [tokenizer.special(name) for name in ("<s>", "[INST]", "[/INST]", "</s>")]
    assert [id for id in row.ids if id in special] == special
    assert row.ids[0] == special[0]
    assert row.ids.count(VISUAL) == 3
    assert row.ids.index(special[1]) < row.ids.index(VISUAL) < row.ids.index(special[2])
    learned = [id for id in row.labels if id != IGNORE]
    assert learned[-1] == row.ids[-1] == special[3]
    assert tokenizer.decode(learned).strip() == "a red kite"


def test_every_answer_of_a_conversation_is_learned_and_no_question(folder):
    tokenizer, _, row = row_of(
        folder, Turn("user", ("how many?",)), Turn("assistant", ("three",)),
        Turn("user", ("what is on the table?",)), Turn("assistant", ("two books",)),
    )  # fmt: skip
    end = tokenizer.special("</s>")
    answers, current = [], []
    for id in (id for id in row.labels if id != IGNORE):
        current.append(id)
        if id == end:
            answers.append(tokenizer.decode(current).strip())
            current = []
    assert answers == ["three", "two books"]
    assert not current


def test_turns_that_do_not_alternate_are_refused_with_the_templates_own_words(folder):
    with pytest.raises(InputError, match=r"^turns_bad: .*roles must alternate"):
        row_of(folder, Turn("user", ("how many?",)), Turn("user", ("and now?",)), Turn("assistant", ("three",)))
