"""ShareGPT: conversations with ChatGPT that its users shared, as collected for Vicuna.

Page: https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered   Licence: unknown (the original site is
gone, and the replies are ChatGPT's)   Of its files only the cleaned one is read.

    {"id": "a1_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"},
                                     {"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4."}]}

gives the query Hi / Hello! / 2 + 2? and the reference "4.": the last reply is the reference, the ones before it are context,
and what the user said after it is left out.

- Speakers by their usual names (`turns.py`). Tools are rejected as `unsupported_content`, others as `unknown_role`.
- Long conversations were cut into pieces (a1_0, a1_1 ...), so many begin with a reply. Replies before the first user turn
  are left out, as Vicuna's own trainer does.
- The texts were web pages. Where the conversion left markup of the page itself (not HTML that is talked about), the text
  isn't what was said: such a row is rejected (`html_remnants`), never repaired.
"""

import re
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.row import Adapter, SourceRow, query, reply
from pipeline.sources.turns import split_at_reply, turns_of
from pipeline.text import snippet

EXPECTED = '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}'

# Each begins with a literal or an anchor, and repeats within bounds, so that matching is linear in the text.
_ANYWHERE = re.compile(
    r'class="(?:markdown prose|flex flex-|whitespace-pre-wrap|p-4 overflow-y-auto)'  # ChatGPT's own style names
    r"|```[\w+#.-]{0,20}Copy code"  # its button, inside the block of code
    r"|Copy\d{1,6} chars / \d{1,6} words"
)
_REPLY = re.compile(r"\s{0,9}(?:<(?:div|p|ul|ol|pre|span)\b[^<>]{0,200}>|\d{1,3} / \d{1,3}\s*(?:\n|\Z))")


def parse(raw: dict[str, Any]) -> SourceRow:
    """The conversation before its last reply, with that reply."""
    before, reference = split_at_reply(turns_of(raw.get("conversations"), "conversations"))
    start = next((index for index, (role, _) in enumerate(before) if role == "user"), len(before))
    context = [turn for turn in before[:start] if turn[0] != "assistant"] + before[start:]
    for role, text in (*context, ("assistant", reply(reference))):
        # A user may ask about HTML that begins a message; a reply begins with prose, or with a block of code.
        markup = _ANYWHERE.search(text) or (_REPLY.match(text) if role == "assistant" else None)
        if markup:
            raise RowReject("html_remnants", expected="text without a web page's markup", got=snippet(markup[0]))
    return SourceRow(query(context), reference)


_HUB_ID, _HUB_FILE = "anon8231489123/ShareGPT_Vicuna_unfiltered", "ShareGPT_V3_unfiltered_cleaned_split.json"
ADAPTER = Adapter("sharegpt", parse, EXPECTED, hub_id=_HUB_ID, hub_file=_HUB_FILE, version=2)
