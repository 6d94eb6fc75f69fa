"""What chat templates do to an answer, each handled or refused: ends, added text, stripped spaces, dates, system prompts."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from pipeline.config.settings import LabelSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.labels.tokenizer import LabelTokenizer
from tests.labels.families import byte_level, fast, metaspace, word_piece

QUERY = [{"role": "user", "content": "How do vaccines work?"}]
HEAD = "{% for m in messages %}{% if m.role != 'assistant' %}<|im_start|>{{ m.content }}\n{% else %}"
TAIL = "{% endif %}{% endfor %}"
# As Qwen 3's: an empty thought before the answer of the last turn, none where thinking is off.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DATED = HEAD.replace("<|im_start|>", "<|im_start|>{{ strftime_now('%d %b %Y') }} ") + "{{ m.content }}<|im_end|>" + TAIL


def labels(chat_template: str, tokenizer: Any = None, **options: Any) -> LabelTokenizer:
    own = fast(tokenizer or byte_level(), chat_template=chat_template)
    return LabelTokenizer(own, LabelSettings(**options), "mine")


def text_of(ours: LabelTokenizer, response: str, messages: Any = QUERY) -> tuple[str, str]:
    """The prompt and the response that are stored, as text."""
    (answer,) = ours.tokenize(messages, response)
    return ours.decode(answer.ids[: answer.prompt_length]), ours.decode(answer.response_ids)


def test_text_behind_the_end_is_not_stored_and_text_before_it_is() -> None:
    for added in ("\n", "\n\n<|im_start|>", "<|im_end|>"):
        assert text_of(labels(HEAD + "{{ m.content }}<|im_end|>" + added + TAIL), "Fine.")[1] == "Fine.<|im_end|>"
    assert text_of(labels(HEAD + "{{ m.content }} [end]<|im_end|>" + TAIL), "Fine.")[1] == "Fine. [end]<|im_end|>"
    # As Llama 2's: a space on either side of the answer, which the model writes itself.
    padded = labels(HEAD + " {{ m.content.strip() }} {{ eos_token }}" + TAIL)
    assert text_of(padded, " Fine.\n")[1] == " Fine. <|im_end|>"


def test_added_tokens_of_white_space_end_no_answer() -> None:
    own = fast(byte_level(), chat_template=HEAD + "{{ m.content }}\n<|im_end|>" + TAIL)
    own.add_tokens(["\n", "  "])
    ours = LabelTokenizer(own, LabelSettings(), "mine")
    assert text_of(ours, "Fine.")[1] == "Fine.\n<|im_end|>"


def test_the_templates_end_of_turn_ends_the_answer_not_the_tokenizers_eos() -> None:
    tokenizer = fast(byte_level(), chat_template=HEAD + "{{ m.content }}<|im_end|>\n" + TAIL, eos_token="<|im_start|>")
    ours = LabelTokenizer(tokenizer, LabelSettings(), "mine")
    assert ours.eos_id == tokenizer.convert_tokens_to_ids("<|im_end|>") != tokenizer.eos_token_id
    assert ours.tokenize(QUERY, "Fine.")[0].ids[-1] == ours.eos_id


def test_a_template_that_ends_an_answer_with_nothing_gets_the_eos() -> None:
    assert text_of(labels(HEAD + "{{ m.content }}" + TAIL), "Fine.")[1] == "Fine.<|im_end|>"
    with pytest.raises(ConfigError, match=r"mine: .*'\\n\[/A\]' and no control token"):
        labels(HEAD + "{{ m.content }}\n[/A]" + TAIL)


@pytest.mark.parametrize("ends", ["  Fine.\n", "\r\nFine.", "Fine.  ", "\tFine. \n\n"])
def test_white_space_around_an_answer_is_stored_as_the_template_writes_it(ends: str) -> None:
    assert text_of(labels(HEAD + "{{ m.content }}<|im_end|>" + TAIL), ends)[1] == f"{ends}<|im_end|>"
    for filter_, kept in (("trim", ends.strip()), ("string", ends)):
        ours = labels(HEAD + "{{ m.content | " + filter_ + " }}<|im_end|>" + TAIL)
        assert text_of(ours, ends)[1] == f"{kept}<|im_end|>"
    left = labels(HEAD + "{{ m.content.lstrip() }}<|im_end|>" + TAIL)
    assert text_of(left, ends)[1] == f"{ends.lstrip()}<|im_end|>"


def test_an_answer_that_the_template_rewrites_is_refused() -> None:
    for always in ("upper", "truncate(10)"):
        with pytest.raises(ConfigError, match="otherwise than behind its generation prompt"):
            labels(HEAD + "{{ m.content | " + always + " }}<|im_end|>" + TAIL)
    sometimes = labels(HEAD + "{{ m.content | replace('  ', ' ') }}<|im_end|>" + TAIL)
    assert text_of(sometimes, "Two words.")[1] == "Two words.<|im_end|>"
    with pytest.raises(RowReject) as caught:
        sometimes.tokenize(QUERY, "Two  words.")
    assert caught.value.reason == "template_alters_answer"
    assert "Two words." in caught.value.evidence["rendered"]


def test_an_empty_thought_that_the_template_puts_in_is_part_of_the_answer() -> None:
    thinks = labels(THINKING)
    prompt, answer = text_of(thinks, "Fine.")
    assert prompt.endswith("<|im_start|>assistant\n")
    assert answer == "<think>\n\n</think>\n\nFine.<|im_end|>"
    quiet = labels(THINKING, template_options={"enable_thinking": False})
    prompt, answer = text_of(quiet, "Fine.")
    assert prompt.endswith("<think>\n\n</think>\n\n") and answer == "Fine.<|im_end|>"
    assert quiet.fingerprint != thinks.fingerprint
    # Its own thoughts would be cut from what is trained on.
    with pytest.raises(RowReject) as caught:
        thinks.tokenize(QUERY, "<think>\nhm\n</think>\n\nFine.")
    assert caught.value.reason == "template_alters_answer"


def test_a_template_that_trains_on_something_else_than_it_samples_is_refused() -> None:
    # As DeepSeek R1's: the generation prompt opens a thought that the rendered conversation lacks.
    opens = HEAD + "{{ m.content }}<|im_end|>" + TAIL + "{% if add_generation_prompt %}<think>\n{% endif %}"
    with pytest.raises(ConfigError, match=r"mine: .*generation prompt.*labels\.template=alpaca"):
        labels(opens)


def test_a_template_that_writes_the_date_is_pinned_or_refused() -> None:
    with pytest.raises(ConfigError, match=r"mine: .*today's date.*labels\.date=") as caught:
        labels(DATED)
    assert "\n" not in str(caught.value)
    pinned = labels(DATED, date=datetime.date(2024, 7, 26))
    assert pinned.render(QUERY).startswith("<|im_start|>26 Jul 2024 How do")
    assert pinned.fingerprint == labels(DATED, date="2024-07-26").fingerprint
    assert pinned.fingerprint != labels(DATED, date="2024-07-27").fingerprint
    # As Llama 3's: the date is asked for only where none is given.
    asks = DATED.replace("strftime_now('%d %b %Y')", "date_string or strftime_now('%d %b %Y')")
    assert labels(asks, template_options={"date_string": "1 May"}).render(QUERY).startswith("<|im_start|>1 May How")


def test_the_templates_own_text_is_not_touched_by_what_pins_the_date() -> None:
    for start in ("\n", "  {% if true %}x{% endif %}", "  x\n", "{#- c -#}\n\n"):
        template = start + HEAD + "{{ m.content }}<|im_end|>" + TAIL
        own = fast(byte_level(), chat_template=template)
        expected = own.apply_chat_template(QUERY, tokenize=False, add_generation_prompt=True)
        assert labels(template).render(QUERY) == expected


def test_the_policys_system_prompt_is_put_before_queries_that_have_none() -> None:
    template = HEAD.replace("{{ m.content }}", "{{ m.role }}: {{ m.content }}") + "{{ m.content }}<|im_end|>" + TAIL
    ours = labels(template, system="Be brief.")
    assert ours.render(QUERY) == "<|im_start|>system: Be brief.\n<|im_start|>user: How do vaccines work?\n"
    own_system = [{"role": "system", "content": "Shout."}, *QUERY]
    assert ours.render(own_system) == labels(template).render(own_system)
    assert ours.fingerprint != labels(template).fingerprint == labels(template, system="").fingerprint
    for name in ("alpaca", "plain"):
        assert "Be brief.\n\nHow do" in labels(template, template=name, system="Be brief.").render(QUERY)
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + template
    with pytest.raises(ConfigError, match="no system"):
        labels(refuses, system="Be brief.")


def test_what_the_tokenizer_adds_to_every_text_begins_the_sequence() -> None:
    for tokenizer, begins in ((metaspace(), "<s>"), (word_piece(), "[CLS]"), (byte_level(), None)):
        for template in ("plain", "alpaca"):
            ours, own = labels("", tokenizer, template=template), fast(tokenizer)
            (answer,) = ours.tokenize(QUERY, "Fine.")
            ids = own(f"{ours.render(QUERY)}Fine.<|im_end|>").input_ids
            assert answer.ids == ids[: len(answer.ids)] and answer.ids[-1] == own.eos_token_id
            assert (own.convert_ids_to_tokens(answer.ids[0]) == begins) == (begins is not None)
            assert len(answer.words) == len(answer.response_ids)
    # A chat template writes its own.
    spelled = labels("{{ '<s>' }}" + HEAD + "{{ m.content }}<|im_end|>" + TAIL, metaspace())
    assert spelled.tokenize(QUERY, "Fine.")[0].ids.count(1) == 1


def test_plain_is_the_turns_and_the_answer() -> None:
    turns = [*QUERY, {"role": "assistant", "content": "Well."}, {"role": "user", "content": "Go on."}]
    assert text_of(labels("", template="plain"), "Fine.", turns) == (
        "How do vaccines work?\n\nWell.\n\nGo on.\n\n",
        "Fine.<|im_end|>",
    )


def test_overlong_pairs_are_refused_or_kept_whole() -> None:
    template = HEAD + "{{ m.content }}<|im_end|>" + TAIL
    long = "word " * 50
    (whole,) = labels(template).tokenize(QUERY, long)
    with pytest.raises(RowReject) as caught:
        labels(template, max_length=32).tokenize(QUERY, long)
    assert caught.value.reason == "too_long" and caught.value.evidence["tokens"] == len(whole.ids)
    assert labels(template, max_length=32, overlong="mark").tokenize(QUERY, long) == [whole]
