"""What the embedded reward sees of an answer: interpretable facts about the text, and hashed n-grams. No weights here.

    dense(messages, response)  -> float64, shape (len(NAMES),)       repetition, relevance, structure, voice, faults
    hashed(text)               -> (int64 (k,), float)                buckets of letter and word n-grams, and their value
    query_text(messages)       -> str                                all that the user said: what kind of query it is

Why the features are as they are:

- None is a list of slurs, topics or stock phrases: which words matter is learned, by the hashed n-grams.
- Typographic quotes and doubled spaces tell writers from a language model and say nothing about quality: they go first.
- Every value is bounded and none is a length, which would decide most pairs, for the shorter answer in some data sets and for
  the longer in others.
- Results are the same on every machine: only counts, divisions and a few square roots, rounded to six decimals.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Message = Mapping[str, str]
# Features as names with values.
Values = Iterable[tuple[str, float]]

BUCKETS = 1 << 15
# The rest of a longer text is not read, so that 10 MB of text cost no more.
MAX_CHARS = 20_000

_ENDINGS = tuple(".!?\"')*`。！？।؟")
_TYPOGRAPHY = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "—": "-", "–": "-", "…": "...", "\u00a0": " ", "\u200b": "", "\ufeff": ""}
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[?!.,:]")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s", re.MULTILINE)
_MARKDOWN = re.compile(r"\*\*|^#+ |```|\]\(|\|", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[[A-Za-z][^\]\n]{2,40}\](?!\()")

# English function words.
_STOP = frozenset(
    "a about after all also am an and any are as at be because been before being but by can could did do does doing "
    "don't for from get had has have he her here hers him his how i i'd i'll i'm i've if in into is it it's its just "
    "like me more most my no not of on one or other our out over please really s she should so some t tell than that "
    "that's the their them then there these they this those to too up us very was we were what what's when where "
    "which who why will with would you you'd you're your".split()
)
_PRONOUNS = {
    "i": ("i", "i'm", "i'd", "i've", "i'll", "me", "my"),
    "you": ("you", "your", "you're", "you'd", "you'll"),
    "they": ("they", "them", "their", "he", "she", "him", "her"),
}


def _clean(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text[:MAX_CHARS].translate(_TYPOGRAPHY)).strip()


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _repeated(values: Sequence[object]) -> float:
    """The share of values that repeat earlier ones."""
    return 1 - len(set(values)) / len(values) if values else 0.0


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _stems(words: Iterable[str]) -> set[str]:
    """Content words, cut to five letters instead of stemmed."""
    return {word[:5] for word in words if word not in _STOP and len(word) > 2}


def _repetition(words: list[str], sentences: list[str]) -> Values:
    pairs = _grams(words, 2)
    starts = Counter(tuple(s.split()[:3]) for s in sentences)
    content = [word[:5] for word in words if word not in _STOP and len(word) > 2]
    yield "repeat_2", _repeated(pairs)
    yield "repeat_4", _repeated(_grams(words, 4))
    yield "repeat_sentence", _repeated(sentences)
    yield "repeat_start", _share(max(starts.values(), default=0) - 1, len(sentences)) if len(sentences) > 1 else 0.0
    yield "stutter", min(1.0, 20 * _share(sum(a == b for a, b in pairs), len(pairs)))
    # Distinct words compared with what a text of this length usually has: distinct ~ n ** 0.8.
    yield "variety", min(1.5, _share(len(set(words)), len(words) ** 0.8))
    yield "variety_content", min(1.5, _share(len(set(content)), len(content) ** 0.85))


def _relevance(words: list[str], query: list[str], past: list[str]) -> Values:
    own, current, earlier = _stems(words), _stems(query), _stems(past)
    threes, query_threes = set(_grams(words, 3)), set(_grams(query, 3))
    yield "answers_query", _share(len(own & current), min(len(current), 8))
    yield "on_topic", _share(len(own & current), len(own) ** 0.5)
    yield "on_thread", _share(len(own & (earlier - current)), len(own) ** 0.5)
    # Saturates at two words: being on topic is good, repeating the query is not.
    yield "related", min(1.0, len(own & (current | earlier)) / 2)
    yield "no_overlap", float(bool(current | earlier) and not own & (current | earlier))
    yield "echo", _share(len(threes & query_threes), len(threes))
    yield "echo_all", _share(len(threes & query_threes), len(query_threes))
    yield "echo_past", _share(len(set(_grams(words, 4)) & set(_grams(past, 4))), max(1, len(words) - 3))
    opening = _stems(words[:12])
    yield "opens_with_query", _share(len(opening & current), len(opening))


def _shape(text: str, words: list[str], sentences: list[str]) -> Values:
    n, letters = len(words), max(1, len(text))
    lengths = [len(s.split()) for s in sentences] or [0]
    odd = sum(not (c.isalnum() or c.isspace() or c in ".,;:!?'\"()-*") for c in text)
    yield "very_short", float(n < 4)
    yield "sentence_mean", min(1.0, sum(lengths) / len(lengths) / 40)
    yield "sentence_first", min(1.0, lengths[0] / 40)
    yield "word_length", min(1.0, sum(map(len, words)) / max(1, n) / 8)
    yield "long_words", _share(sum(len(w) > 8 for w in words), n)
    yield "function_words", _share(sum(w in _STOP for w in words), n)
    yield "contractions", min(1.0, 5 * _share(sum("'" in w for w in words), n))
    yield "list", min(1.0, len(_LIST_ITEM.findall(text)) / 5)
    yield "markdown", min(1.0, len(_MARKDOWN.findall(text)) / 4)
    yield "placeholder", min(1.0, len(_PLACEHOLDER.findall(text)) / 2)
    yield "ends_in_colon", float(text.endswith(":"))
    yield "lower_start", float(text[:1].islower())
    yield "shouting", min(1.0, 4 * _share(sum(c.isupper() for c in text), letters))
    yield "odd_characters", _share(odd, letters) ** 0.5
    yield "digits", min(1.0, 5 * _share(sum(c.isdigit() for c in text), letters))
    yield "names", min(1.0, 10 * _share(len(_NAME.findall(text)), n))
    yield "commas", min(1.0, 8 * _share(text.count(","), n))
    yield "exclaims", min(1.0, text.count("!") / 3)
    yield "quotes", min(1.0, text.count('"') / 4)


def _voice(text: str, words: list[str], sentences: list[str]) -> Values:
    for name, forms in _PRONOUNS.items():
        yield name, min(1.0, 5 * _share(sum(w in forms for w in words), len(words)))
    yield "asks", _share(text.count("?"), len(sentences)) if text.count("?") <= len(sentences) else 1.0
    yield "ends_asking", float(text.endswith("?"))


def _faults(values: Mapping[str, float], text: str, words: list[str], context_stems: set[str]) -> Values:
    """Zero for nearly every honest answer, so that preferences among honest answers don't decide their weights."""
    own = _stems(words)
    off_topic = max(0.0, 0.08 - _share(len(own & context_stems), len(own))) / 0.08 * min(1.0, len(own) / 15)
    yield "fault_loop", max(0.0, values["repeat_4"] - 0.1)
    yield "fault_repeat", max(0.0, values["repeat_2"] - 0.25)
    yield "fault_same_sentence", max(0.0, values["repeat_sentence"] - 0.1)
    yield "fault_parrot", max(0.0, values["echo"] - 0.3)
    yield "fault_whole_query", max(0.0, values["echo_all"] - 0.6) if len(words) > 3 else 0.0
    yield "fault_cut_off", float(text[-1:] not in _ENDINGS)
    yield "fault_off_topic", off_topic if context_stems else 0.0


def _dense_map(messages: Sequence[Message], response: str) -> dict[str, float]:
    text = _clean(response)
    lower = text.lower()
    words = _WORD.findall(lower)
    sentences = [s for sentence in _SENTENCE.findall(lower) if (s := sentence.strip(" .!?\"'*-"))]
    turns = [_WORD.findall(_clean(m["content"]).lower()) for m in messages[-8:]] or [[]]
    past = [w for turn in turns[:-1] for w in turn]
    values = dict(_repetition(words, sentences))
    values.update(_relevance(words, turns[-1], past))
    values.update(_shape(text, words, sentences))
    values.update(_voice(text, words, sentences))
    values.update(_faults(values, text, words, _stems(turns[-1]) | _stems(past)))
    return values


NAMES: tuple[str, ...] = tuple(_dense_map([], ""))


def dense(messages: Sequence[Message], response: str) -> npt.NDArray[np.float64]:
    """Facts about one response, float64, shape (len(NAMES),), each within about [-1, 1.5]."""
    values = _dense_map(messages, response)
    return np.array([round(values[name], 6) for name in NAMES], dtype=np.float64)


def _terms(text: str) -> Iterator[str]:
    """Runs of three to five letters inside words, of two or three words with their punctuation, and the first words."""
    tokens = _TOKEN.findall(text)
    for n in (2, 3):
        yield from (" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    yield from ("^" + " ".join(tokens[:n]) for n in (1, 2, 3))
    for word in {f" {word} " for word in text.split()}:
        for n in (3, 4, 5):
            yield from (word[i : i + n] for i in range(max(1, len(word) - n + 1)))


def hashed(text: str) -> tuple[npt.NDArray[np.int64], float]:
    """Buckets in [0, BUCKETS) of the text's distinct terms, sorted, int64, shape (k,); and each one's value, 1 / sqrt(k).

    That value makes the vector's length 1 however long the text is; crc32 is the same in every process.
    """
    text = _clean(text).lower()
    if not text:
        return np.zeros(0, dtype=np.int64), 0.0
    buckets = sorted({zlib.crc32(term.encode("utf-8", "replace")) % BUCKETS for term in _terms(text)})
    return np.array(buckets, dtype=np.int64), round(len(buckets) ** -0.5, 6)


def query_text(messages: Sequence[Message]) -> str:
    """The user's turns, one after the other."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")
