"""Random pairs of texts that tokenizers find hard: every script, joiners, code, line ends, white space at either end."""

from __future__ import annotations

import random

_RANGES = [
    *[(0x20, 0x7F)] * 4,
    (0xA0, 0x250),  # Latin
    (0x300, 0x370),  # combining marks
    (0x370, 0x530),  # Greek, Cyrillic
    (0x590, 0x700),  # Hebrew, Arabic: right to left
    (0x900, 0xE00),  # Indic scripts, Thai
    (0x1100, 0x1200),  # Hangul letters that combine
    (0x2000, 0x2070),  # spaces, joiners, bidi controls
    (0x3040, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A4),
    (0xFB00, 0xFE10),  # ligatures and presentation forms
    (0x1F300, 0x1FA00),
    (0x20000, 0x2A6E0),
]
_PIECES = [
    *("👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "e\u0301", "\u0301", "a\u0323\u0307", "ﷺ", "ﬁ", "ß", "İ", "\u200b"),
    *("\u200d", "\ufeff", "\xa0", "Ġ", "▁", "##ing"),
    *("שָׁלוֹם", "مرحبا بالعالم", "\u202eabc\u202c", "疫苗有效。", "ワクチン", "한국어", "नमस्ते", "สวัสดี"),
    *("def f(x):\n\treturn x**2\r\n", "if (a && b) { c->d[0] = '\\n'; }", "\r\n", "\n\n", "\t", "  ", "   ", "```py\nx\n```"),
    *("don't", " the", "The", "word", ", and", "3.14", "1234567", "{{ x }}", "${HOME}", "%s", "\0", "\x1f", "http://x.y/z?q=1"),
]  # fmt: skip
_ENDS = ["", "", "", " ", "  ", "\n", "\t", "\r\n", "\xa0"]


def _piece(chance: random.Random) -> str:
    if chance.random() < 0.6:
        return chance.choice(_PIECES)
    low, high = chance.choice(_RANGES)
    return "".join(chr(chance.randrange(low, high)) for _ in range(chance.randint(1, 4)))


def random_pairs(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """Query, answer, and the answer with a few pieces changed; each answer may begin and end in white space."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        pieces = [_piece(chance) for _ in range(chance.randint(1, 10))]
        revised = list(pieces)
        for place in chance.sample(range(len(pieces)), chance.randint(1, min(3, len(pieces)))):
            revised[place] = _piece(chance)
        gap = chance.choice(("", " "))
        query = " ".join(_piece(chance) for _ in range(3))
        answers = (f"{chance.choice(_ENDS)}{gap.join(p)}{chance.choice(_ENDS)}" for p in (pieces, revised))
        made.append((query, *answers))
    return made  # type: ignore[return-value]
