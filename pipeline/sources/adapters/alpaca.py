"""Alpaca: 52,000 instructions with answers by text-davinci-003.

Page: https://huggingface.co/datasets/tatsu-lab/alpaca   Licence: CC BY-NC 4.0   Format as of: dce01c9
Code: https://github.com/tatsu-lab/stanford_alpaca

    {"instruction": "Name the capital of:", "input": "France", "output": "Paris.", "text": "Below is an instruction …"}

gives the query "Name the capital of:", a blank line, "France", and the reference "Paris.". `text` repeats them, rendered
as a prompt, and is ignored.

- About 60 % have an empty input: the instruction alone is the query. Some spell it out ("<noinput>", "No input").
- Files of this format for other trainers may have a `system` text and a `history` of [question, answer] pairs before it.
- An output such as "<nooutput>" is no answer: rejected (`empty_reference`).
"""

import re
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.fields import read
from pipeline.sources.row import Adapter, SourceRow
from pipeline.text import snippet

_FIELDS = {part: part for part in ("input", "history", "system")} | {"prompt": "instruction", "reference": "output"}
_NOTHING = re.compile(r"\s{0,9}<?\s?no[ _]?(?:input|output)\s?>?\.?\s{0,9}", re.IGNORECASE)


def parse(raw: dict[str, Any]) -> SourceRow:
    """The instruction, with its input if there is one, and the answer."""
    extra = raw.get("input")
    row = read(raw | {"input": ""} if isinstance(extra, str) and _NOTHING.fullmatch(extra) else raw, _FIELDS)
    if _NOTHING.fullmatch(row.reference):
        raise RowReject("empty_reference", expected="a reply in words", got=snippet(row.reference))
    return row


EXPECTED = '{"instruction": "…", "input": "…" (may be empty), "output": "…"}'
ADAPTER = Adapter("alpaca", parse, EXPECTED, hub_id="tatsu-lab/alpaca", licence="CC-BY-NC-4.0", version=2)
