"""A data set whose texts try everything that a report, a terminal or a card could fall for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import pairs

TEXTS = (
    "<script>window.ran = 1</script>",
    "</script><img src=x onerror=window.ran=1>",
    "</style><svg onload=window.ran=1>",
    "[click](javascript:window.ran=1)",
    "\u202eevil\u202c \u2066bidi\u2069 \u200bzero\u200d width\u00a0nbsp",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m",
    "x" * 100_000,
    "{{ 7*7 }} {% raw %} ${HOME} \u2028 line \n\n---\n# heading | table ` code\n\ttab ",
)


def data_set(out: Path, tokenizer: Path, revised: str = "") -> Path:
    """Published pairs with each text in every field that can hold it: query, reference, diagnosis, source, answers.

    revised: the revised answer of all rows; default: one of each row's own.
    """

    def hostile(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
        for row, text in zip(own(count, seed), TEXTS * 2, strict=False):
            short = text if len(text) < 1000 else "long"
            row["messages"][-1]["content"] += f" {short}"
            yield row | {
                "source": f"synthetic {short}",
                "diagnosis": f"other {short}",
                "reference": text,
                "initial": f"{row['initial']} {short}",
                "revised": revised or f"{short} {row['revised']} ",
            }

    own = pairs.pairs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "pairs", hostile)
        return pairs.data_set(out, tokenizer, len(TEXTS))
