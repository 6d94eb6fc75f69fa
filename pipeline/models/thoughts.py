"""What a model thinks in the text of its answer, apart from what it says; and tokens that belong in no text.

Servers without a reasoning parser leave thoughts in the text, between tags or in channels, and the opening tag is often part
of the prompt. A tag in an answer that speaks of such tags (inside a sentence, in code) is left alone.
"""

import re
from itertools import islice

_NAMES = "think|thinking|thought|reasoning|seed:think"
_TAG = re.compile(
    rf"</?(?:{_NAMES})>"
    r"|\[/?THINK\]"  # Magistral
    r"|◁/?think▷"  # Kimi-VL
    r"|<\|(?:begin|end)_of_thought\|>"  # OpenThinker
    r"|<\|channel>(?:thought|analysis)|<channel\|>",  # Gemma
    re.IGNORECASE,
)
_MARKS = "<[◁"  # every tag begins with one of these
_CLOSING = re.compile(r"\W/|<\|end|<channel", re.IGNORECASE)
# gpt-oss: <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…; without its control
# tokens: analysis…assistantfinal…
_CHANNEL = re.compile(r"(?:<\|end\|>\s*)?(?:<\|start\|>\s*\w*\s*)?<\|channel\|>")
_CHANNELS = re.compile(r"\A\s*(?:<\|start\|>\s*\w*\s*)?<\|channel\|>|(?<!`)<\|channel\|>\s*final[^<]*<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_CHANNELS = re.compile(r"\s*analysis(?=\S)(.*?)assistant\s*final(?!\w*ly)(.*)", re.DOTALL)
# Control tokens of all families: <|im_end|> <|eot_id|> <｜end▁of▁sentence｜> <end_of_turn> </s> [INST] [|endofturn|] …
_CONTROL = re.compile(
    r"<\|[A-Za-z0-9_]{2,40}\|>|<｜[^｜<>\s]{1,40}｜>|<\|turn>|<turn\|>"
    r"|</?s>|<(?:start|end)_of_(?:turn|text|image)>|<(?:bos|eos|pad|unk|eop|eoa|sop|eod|eot|endoftext)>"
    r"|<</?SYS>>|\[/?INST\]|\[/?(?:SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]|\[gMASK\]"
    r"|\[\|[a-z]{2,20}\|\]|<extra_id_\d+>|<reserved_\d+>|\[UNUSED_TOKEN_\d+\]"
)
_LONGEST_CONTROL = 48
# A text with more is no answer; reading it takes quadratic time.
_MOST_TAGS = 100


def split_thoughts(text: str) -> tuple[str, str]:
    """The answer, and what the model thought, "" where it didn't; thoughts that nothing ends leave an empty answer.

    >>> split_thoughts("<think>Four, or five?</think> Four.")
    (' Four.', 'Four, or five?')
    """
    # Most texts hold no tag, and this is much quicker than the expressions.
    if not any(mark in text for mark in _MARKS) and not text.lstrip().startswith("analysis"):
        return text, ""
    if "<|channel|>" in text and _CHANNELS.search(text):
        return _split_channels(text)
    if bare := _BARE_CHANNELS.fullmatch(text):
        return bare[2], bare[1].strip()
    thoughts: list[str] = []
    while len(thoughts) < _MOST_TAGS and (span := _next_thought(text)):
        start, inner_start, inner_end, end = span
        thoughts.append(text[inner_start:inner_end].strip())
        before, after = text[:start], text[end:]
        text = f"{before.rstrip()}\n\n{after.lstrip()}" if before.strip() else after
    return text, "\n\n".join(filter(None, thoughts))


def _split_channels(text: str) -> tuple[str, str]:
    # Before the first channel stands what the prompt's own channel opened.
    first, *channels = _CHANNEL.split(text)
    answers: list[str] = []
    thoughts = [_CHANNEL_END.split(first)[0]]
    for channel in channels:
        header, _, message = channel.partition("<|message|>")
        (answers if header.strip().startswith("final") else thoughts).append(_CHANNEL_END.split(message)[0])
    return "\n\n".join(answers), "\n\n".join(thought.strip() for thought in thoughts if thought.strip())


def _next_thought(text: str) -> tuple[int, int, int, int] | None:
    """Where the text's first thought starts, its tags left out and counted in: (start, inner start, inner end, end)."""
    tags = [tag for tag in islice(_TAG.finditer(text), _MOST_TAGS) if not _quoted(text, tag)]
    if not tags:
        return None
    opening, *others = tags
    if not _closes(opening) and not text[: opening.start()].strip():
        ending = next((tag for tag in others if _closes(tag) and _kind(tag) == _kind(opening)), None)
        ends = (ending.start(), ending.end()) if ending else (len(text), len(text))
        return 0, opening.end(), *ends
    for ending in tags:
        if not _closes(ending) or _in_code(text, ending):
            continue
        before = [tag for tag in tags if tag.end() <= ending.start()]
        openings = [tag for tag in before if _kind(tag) == _kind(ending) and not _closes(tag)]
        if not openings and not _mentioned(text, ending):
            return 0, 0, ending.start(), ending.end()
        if openings and _has_own_lines(text, openings[-1], ending):
            return openings[-1].start(), openings[-1].end(), ending.start(), ending.end()
    return None


def _closes(tag: re.Match[str]) -> bool:
    return bool(_CLOSING.match(tag[0]))


def _kind(tag: re.Match[str]) -> str:
    """The same for both tags of a pair."""
    words = re.findall("[a-z]+", tag[0].lower())
    return next(str(word) for word in words if word not in ("begin", "end", "of"))


def _quoted(text: str, tag: re.Match[str]) -> bool:
    return text[tag.start() - 1 : tag.start()] == text[tag.end() : tag.end() + 1] == "`"


def _in_code(text: str, tag: re.Match[str]) -> bool:
    return text.count("```", 0, tag.start()) % 2 == 1


def _has_own_lines(text: str, opening: re.Match[str], ending: re.Match[str]) -> bool:
    before, after = text[: opening.start()].rpartition("\n")[2], text[ending.end() :].partition("\n")[0]
    return not _in_code(text, opening) and not before.strip() and not after.strip()


def _mentioned(text: str, tag: re.Match[str]) -> bool:
    """Whether the tag is a word of a sentence: `the </think> tag`, `"</think>"`."""
    before, after = text[: tag.start()][-1:], text[tag.end() :][:1]
    return before in tuple(" \t\"'“‘(") and after in tuple(" \t\"'”’).,:;?!")


def without_end_tokens(text: str) -> str:
    """The text without the control tokens at its end, which a server should have kept to itself.

    >>> without_end_tokens("Four.</s>")
    'Four.'
    """
    kept = text
    while (rest := kept.rstrip()).endswith((">", "]")):
        last = rest[-_LONGEST_CONTROL:]
        tokens = [token for token in _CONTROL.finditer(last) if token.end() == len(last)]
        # A last </s> may strike a word out in HTML.
        if not tokens or (tokens[0][0] == "</s>" and "<s>" in rest):
            break
        kept = rest[: len(rest) - len(tokens[0][0])].rstrip()
    return kept


def control_token(text: str) -> str | None:
    """The first token of a chat template in the text, of whatever model family; None without one.

    >>> control_token("Four.<|im_end|><|im_start|>user")
    '<|im_end|>'
    """
    found = [token[0] for token in _CONTROL.finditer(text)]
    # <s>…</s> is HTML for text that is struck out.
    html = found.count("<s>") == found.count("</s>")
    return next((token for token in found if not (html and token in ("<s>", "</s>"))), None)
