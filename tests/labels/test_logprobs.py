"""The policy's log-probs on label tokens: equal texts meet, what doesn't meet is null."""

from __future__ import annotations

from typing import Any

import pytest

from tests.labels.test_templates import HEAD, QUERY, TAIL, THINKING, labels

PLAIN = HEAD + "{{ m.content }}<|im_end|>" + TAIL


def aligned(pieces: list[str], text: str, template: str = PLAIN) -> tuple[list[str], list[Any], Any]:
    """The label tokens of an answer, and their log-probs, where the server's tokens are `pieces`, each of −its number."""
    from pipeline.labels.logprobs import align

    ours = labels(template)
    (answer,) = ours.tokenize(QUERY, text)
    tokens = [{"text": piece, "logprob": -float(number)} for number, piece in enumerate(pieces, 1)]
    values = align(tokens, text, answer)
    assert len(values) == len(answer.ids) and set(values[: answer.prompt_length]) == {None}
    return answer.pieces, values[answer.prompt_length :], answer


def test_the_same_tokens_have_their_own_values_and_the_eos_none() -> None:
    pieces, _, _ = aligned([], "They train the immune system.")
    again, values, _ = aligned(pieces[:-1], "They train the immune system.")
    assert again == pieces and values == [-float(n) for n in range(1, len(pieces))] + [None]


def test_one_token_over_several_has_their_sum_and_several_over_one_have_none() -> None:
    text = "They train the immune system."
    letters, values, _ = aligned(list(text), text)
    place = 0
    for piece, value in zip(letters[:-1], values, strict=False):
        assert value == -sum(range(place + 1, place + len(piece) + 1))
        place += len(piece)
    assert set(aligned([text[:9], text[9:]], text)[1]) <= {None, -1.0, -2.0}


def test_what_the_server_wrote_around_the_answer_and_the_template_before_it_is_left_out() -> None:
    text = "Fine, é 👍."
    pieces, values, answer = aligned(["\n", "Fine", ",", " é", " 👍", "."], text, THINKING)
    known = {piece: value for piece, value in zip(pieces, values, strict=True) if value is not None}
    assert known["."] == -6.0 and not any("think" in piece for piece in known)
    # A character of several tokens has no value of its own.
    assert all(len(piece.encode()) == len(piece) for piece in known)
    assert answer.pieces == pieces


@pytest.mark.parametrize("pieces", [[], ["Another", " text"], ["F\ufffd", "ine."]])
def test_other_texts_have_none(pieces: list[str]) -> None:
    assert set(aligned(pieces, "Fine.")[1]) == {None}
