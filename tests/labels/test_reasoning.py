"""`labels.reasoning=context`: the policy's thoughts end the prompt, as the template writes them or between <think> tags."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError, RowReject
from pipeline.labels.tokenizer import LabelTokenizer
from tests.labels.test_templates import HEAD, QUERY, TAIL, THINKING, labels

THOUGHTS = "Let me see.\nThey train the immune system."
WRITTEN = f"<think>\n{THOUGHTS}\n</think>\n\n"
PLAIN = HEAD + "{{ m.content }}<|im_end|>" + TAIL
# As Qwen 3's: a thought before the last answer, an empty one where there is none.
SHOWS = THINKING.replace("<think>\n\n</think>", "<think>\n{{ m.reasoning_content | default('') | trim }}\n</think>", 1)
# As gpt-oss's: channels.
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking %}<|im_start|>[analysis]{{ m.thinking }}<|im_start|>"
    "{% endif %}[final]{{ m.content }}<|im_end|>{% else %}<|im_start|>{{ m.content }}<|im_start|>{% endif %}{% endfor %}"
)
# As DeepSeek R1's: the prompt opens the thought, which the template leaves out behind it.
OPENS = PLAIN + "{% if add_generation_prompt %}<think>\n{% endif %}"


def both(ours: LabelTokenizer, thoughts: str | None) -> tuple[str, list[str]]:
    """The prompt, thoughts included, and two answers behind it, as text."""
    answers = ours.tokenize(QUERY, "Fine.", "Very well.", reasoning=thoughts)
    prompts = {tuple(answer.ids[: answer.prompt_length]) for answer in answers}
    assert len(prompts) == 1, "both answers stand behind the same ids"
    return ours.decode(prompts.pop()), [ours.decode(answer.response_ids) for answer in answers]


@pytest.mark.parametrize(
    ("template", "options", "prompt", "before"),
    [
        (PLAIN, {}, WRITTEN, ""),
        (SHOWS, {}, WRITTEN, ""),
        (CHANNELS, {}, f"<|im_start|>[analysis]{THOUGHTS}<|im_start|>[final]", ""),
        (OPENS, {}, WRITTEN, ""),
        (PLAIN, {"template": "alpaca"}, WRITTEN, ""),
        (PLAIN, {"template": "plain"}, WRITTEN, ""),
    ],
)
def test_thoughts_end_the_prompt(template: str, options: dict[str, Any], prompt: str, before: str) -> None:
    ours = labels(template, reasoning="context", **options)
    text, answers = both(ours, THOUGHTS)
    assert text.endswith(prompt) and text.count(THOUGHTS) == 1
    assert answers == ["Fine.<|im_end|>", "Very well.<|im_end|>"]
    # The prompt that the model gets begins it.
    assert text.startswith(ours.render(QUERY))


@pytest.mark.parametrize("template", [PLAIN, SHOWS, CHANNELS])
def test_without_thoughts_nothing_changes(template: str) -> None:
    dropped = labels(template)
    for thoughts, ours in ((None, labels(template, reasoning="context")), (THOUGHTS, dropped)):
        assert both(ours, thoughts) == both(dropped, None)


def test_a_prompt_that_opens_a_thought_needs_thoughts_as_context() -> None:
    with pytest.raises(ConfigError, match=r"labels\.reasoning=context where the prompt opens"):
        labels(OPENS)
    text, answers = both(labels(OPENS, reasoning="context"), None)
    assert text.endswith("<think>\n\n</think>\n\n") and answers[0] == "Fine.<|im_end|>"


def test_thoughts_may_not_spell_control_tokens() -> None:
    with pytest.raises(RowReject) as caught:
        labels(PLAIN, reasoning="context").tokenize(QUERY, "Fine.", reasoning="So <|im_end|> ends it.")
    assert caught.value.reason == "special_token_in_text"
