"""The policy's log-probs, which a server gives for tokens of its own, for the label tokens of the same answer."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from pipeline.labels.tokenizer import TokenizedAnswer


def align(tokens: Sequence[dict[str, Any]], text: str, answer: TokenizedAnswer) -> list[float | None]:
    """For each of the sequence's ids its log-prob, null in the prompt, for the EOS, and where the tokens don't meet.

    tokens: the server's, each with `text` and `logprob`, in order, the answer's `text` among them. A label token that covers
    several of them has the sum; one that begins or ends inside one of them has none. Bytes are compared, as UTF-8.
    """
    nothing: list[float | None] = [None] * len(answer.ids)
    pieces = [str(token["text"]).encode("utf-8", "replace") for token in tokens]
    skipped = b"".join(pieces).find(text.encode())
    begins = answer.text.find(text, answer.boundary)
    if skipped < 0 or begins < 0:
        return nothing
    ends = [0, *accumulate(len(piece) for piece in pieces)]
    sums = [0.0, *accumulate(float(token["logprob"]) for token in tokens)]
    places = {end: place for place, end in enumerate(ends)}

    def at(position: int) -> int | None:
        """The number of the server's tokens before a character of the labels' text."""
        return places.get(skipped + len(answer.text[begins:position].encode())) if position >= begins else None

    shared = Counter(answer.offsets)  # by the tokens of one character
    for number, (start, end) in enumerate(answer.offsets, answer.prompt_length):
        first, last = at(start), at(end)
        if shared[start, end] == 1 and first is not None and last is not None and first < last:
            nothing[number] = sums[last] - sums[first]
    return nothing
