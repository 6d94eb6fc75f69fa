"""What the embedded reward sees of a response: cheap, interpretable facts about the text, and hashed words.

This file knows no weights. Two kinds of features, both pure functions of (messages, response):

    dense(messages, response)  -> float64, shape (len(NAMES),)       repetition, relevance, tone, structure ...
    hashed(response)           -> (int64 (k,), float)                buckets of letter and word n-grams, and their value

Why they are built as they are:

- Nothing here may tell *who wrote* a text: typographic quotes, doubled spaces and the like are removed first, because
  they separate a data set's writer from a language model perfectly and say nothing about quality.
- Every value is bounded, most are shares, and none is a length: people preferred the shorter reply in 55 % of the pairs,
  and a head that learns this vetoes every revision that adds a sentence.
- No zlib, no float reductions in numpy: compressed sizes differ between zlib builds and summation order between CPUs.
  What is left are counts, divisions and a few square roots, rounded to six decimals.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Message = Mapping[str, str]

BUCKETS = 1 << 15
# Longer texts are judged by their head: 10 MB of text must cost no more than this many characters.
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
_PLACEHOLDER = re.compile(r"\[(?:your|insert|name|date|company|email|address|recipient)[^\]]*\]", re.IGNORECASE)

_STOP = frozenset(
    "a about after all also am an and any are as at be because been before being but by can could did do does doing "
    "don't for from get had has have he her here hers him his how i i'd i'll i'm i've if in into is it it's its just "
    "like me more most my no not of on one or other our out over please really s she should so some t tell than that "
    "that's the their them then there these they this those to too up us very was we were what what's when where "
    "which who why will with would you you'd you're your".split()
)


def _either(words: str) -> re.Pattern[str]:
    """A pattern that finds any of the `|`-separated phrases, on word boundaries, in lower-cased text."""
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)")


# Phrases in lower case. Each is a tone or an act of speech that readers of hh-rlhf reward or punish.
_PHRASES = {
    "refuse": _either(
        r"i (?:can't|cannot|won't|will not|couldn't|am unable to|refuse)"
        r"|i'm (?:unable|not able|not going|not comfortable)|i don't (?:want|think (?:i|you|that|it|we))"
        r"|i'm not (?:willing|allowed)|(?:would|do) not (?:recommend|advise)|(?:wouldn't|don't) (?:recommend|advise)"
        r"|(?:advise|recommend) against|(?:should|must)(?:n't| not)|not a good idea"
    ),
    "warn": _either(
        r"illegal\w*|against the law|crimes?|criminal\w*|danger\w*|harm\w*|unsafe|hurt\w*|wrong|unethical|immoral"
        r"|serious\w*|consequences|risk\w*|(?:in)?appropriate\w*|offensive|racis\w+|sexis\w+|discriminat\w+"
        r"|stereotyp\w+|bad idea"
    ),
    "sorry": _either(r"sorry|apologi[sz]e\w*|unfortunately|afraid"),
    "unsure": _either(
        r"i'm not (?:sure|really sure|certain)|i don't (?:know|understand|really)|not sure|no idea|unclear"
    ),
    "hedge": _either(
        r"maybe|perhaps|might|probably|possibl[ey]|seems?|i think|i guess|i believe|i suppose|sort of|kind of"
    ),
    "clarify": _either(
        r"(?:do|did) you mean|what (?:do|did) you|can you (?:tell|explain|clarify|give|say)"
        r"|could you (?:tell|explain|clarify|say)|tell me more|more (?:details?|information|specific)"
        r"|what (?:kind|sort|type) of|are you (?:asking|looking|trying|sure)"
    ),
    "comply": _either(
        r"you (?:can|could|might|may|would|need to|should|will)|first|second|then|next|step|steps|here (?:are|is)"
        r"|here's|sure|try"
    ),
    "agree": _either(
        r"yes|yeah|yep|ok|okay|right|exactly|of course|definitely|true|great|good idea|absolutely|certainly"
    ),
    "support": _either(
        r"help|support|talk to|therapist|doctor|police|lawyer|professional|counselor|hotline|friend|family|safe\w*"
        r"|care|understand|feel\w*|hope|important|respect\w*|better"
    ),
    "curious": _either(
        r"why (?:do|did|are|would|is)|interested|curious|would you like|let me know|what's going on|happened"
    ),
    "assistant": _either(
        r"as an ai|language model|i'm an ai|i'm (?:just )?an? (?:assistant|computer|robot|bot|program\w*|machine)"
    ),
    "human": _either(
        r""
        r"my (?:wife|husband|girlfriend|boyfriend|mom|mother|dad|father|kids?|son|daughter|friends?|family|job|boss|house|car)"
        r"|i (?:went|grew up|live|lived|bought|ate|drove|worked|was born|remember|used to)|when i was|i've been"
    ),
    "toxic": _either(
        r"fuck\w*|shit\w*|bitch\w*|asshole\w*|cunt\w*|dick|cock|pussy|whores?|sluts?|bastards?|nigg\w+|fag\w*"
        r"|retard\w*|dumb\w*|stupid\w*|idiots?|moron\w*|ugly|kill|rape\w*|losers?|crap|damn|hell|shut up|hate|trash"
        r"|scum|filthy|worthless"
    ),
    "sweeping": _either(
        r"(?:all|most|many|these|those|black|white|jewish|muslim|asian|gay|mexican) (?:people|men|women|of them)"
        r"|women (?:are|should)|men (?:are|should)|they(?:'re| are) (?:all |just |very |more |less )?\w+|always|never"
        r"|everyone|nobody"
    ),
    "groups": _either(
        r"jews?|jewish|muslims?|islam|blacks?|african\w*|mexicans?|latin\w*|asians?|chinese|indians?|immigrants?|gays?"
        r"|lesbians?|wom[ae]n|females?|girls?|white people|whites|races?|religio\w+|christian\w*|hitler|nazi\w*"
        r"|holocaust|republicans?"
    ),
    "meta": _either(
        r"here is (?:the|a) (?:revised|rewritten|improved|corrected)|i hope this helps|human:|assistant:|user:"
        r"|the user|the assistant"
    ),
}
_RISK = _either(
    r"kill\w*|murder\w*|poison\w*|bombs?|explosi\w+|guns?|weapons?|shoot\w*|stab\w*|hurt\w*|beat|fight|attack\w*"
    r"|steal\w*|stole|rob\w*|shoplift\w*|hack\w*|break in\w*|fraud|fake|forge\w*|counterfeit\w*|scam\w*|cheat\w*"
    r"|illegal\w*|drugs?|meth|heroin|cocaine|weed|crack|drunk|suicide|die|dead|death|bod(?:y|ies)|rape\w*|sex\w*"
    r"|porn\w*|nude\w*|naked|kidnap\w*|stalk\w*|spy|revenge|prank\w*|bully\w*|insult\w*|racis\w+|jews?|muslims?"
    r"|blacks?|mexicans?|immigrants?|gays?|lie|lying|secretly|without (?:them|him|her|anyone|being|getting)|get away"
    r"|caught|torture\w*|abuse\w*|blackmail\w*|password\w*|smuggl\w+|arson|burn\w*|terroris\w+|hate|nazi\w*|hitler"
)

Pairs = Iterable[tuple[str, float]]


def _clean(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text[:MAX_CHARS].translate(_TYPOGRAPHY)).strip()


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _stems(words: Iterable[str]) -> set[str]:
    """Content words, cut to five letters: a stemmer that needs no language."""
    return {word[:5] for word in words if word not in _STOP and len(word) > 2}


def _repetition(words: list[str], sentences: list[str]) -> Pairs:
    pairs, fours = _grams(words, 2), _grams(words, 4)
    starts = Counter(tuple(s.split()[:3]) for s in sentences)
    yield "repeat_2", 1 - _share(len(set(pairs)), len(pairs)) if pairs else 0.0
    yield "repeat_4", 1 - _share(len(set(fours)), len(fours)) if fours else 0.0
    yield "repeat_sentence", 1 - _share(len(set(sentences)), len(sentences)) if sentences else 0.0
    yield "repeat_start", _share(max(starts.values(), default=0) - 1, len(sentences)) if len(sentences) > 1 else 0.0
    yield "stutter", min(1.0, 20 * _share(sum(a == b for a, b in pairs), len(pairs)))
    # Distinct words against what a text of this length usually has: distinct ~ n ** 0.8.
    yield "variety", min(1.5, _share(len(set(words)), len(words) ** 0.8)) if words else 0.0


def _relevance(words: list[str], query: list[str], past: list[str]) -> Pairs:
    mine, asked, known = _stems(words), _stems(query), _stems(past)
    threes, query_threes = set(_grams(words, 3)), set(_grams(query, 3))
    yield "answers_query", _share(len(mine & asked), min(len(asked), 8))
    yield "on_topic", _share(len(mine & asked), len(mine) ** 0.5)
    yield "on_thread", _share(len(mine & (known - asked)), len(mine) ** 0.5)
    yield "no_overlap", float(bool(asked | known) and not mine & (asked | known))
    yield "echo", _share(len(threes & query_threes), len(threes))
    yield "echo_all", _share(len(threes & query_threes), len(query_threes))
    yield "echo_past", _share(len(set(_grams(words, 4)) & set(_grams(past, 4))), max(1, len(words) - 3))


def _shape(text: str, words: list[str], sentences: list[str]) -> Pairs:
    n, letters = len(words), max(1, len(text))
    lengths = [len(s.split()) for s in sentences] or [0]
    yield "very_short", float(n < 4)
    yield "sentence_mean", min(1.0, sum(lengths) / len(lengths) / 40)
    yield "word_length", min(1.0, sum(map(len, words)) / max(1, n) / 8)
    yield "function_words", _share(sum(w in _STOP for w in words), n)
    yield "list", min(1.0, len(_LIST_ITEM.findall(text)) / 5)
    yield "markdown", min(1.0, len(_MARKDOWN.findall(text)) / 4)
    yield "placeholder", min(1.0, len(_PLACEHOLDER.findall(text)) / 2)
    yield "ends_in_colon", float(text.endswith(":"))
    yield "lower_start", float(text[:1].islower())
    yield "shouting", min(1.0, 4 * _share(sum(c.isupper() for c in text), letters))
    yield (
        "odd_characters",
        _share(sum(not (c.isalnum() or c.isspace() or c in ".,;:!?'\"()-*") for c in text), letters) ** 0.5,
    )
    yield "digits", min(1.0, 5 * _share(sum(c.isdigit() for c in text), letters))
    yield "names", min(1.0, 10 * _share(len(_NAME.findall(text)), n))
    yield "commas", min(1.0, 8 * _share(text.count(","), n))
    yield "exclaims", min(1.0, text.count("!") / 3)
    yield "quotes", min(1.0, text.count('"') / 4)


def _voice(text: str, words: list[str], sentences: list[str]) -> Pairs:
    n = len(words)
    yield "i", min(1.0, 5 * _share(sum(w in ("i", "i'm", "i'd", "i've", "i'll", "me", "my") for w in words), n))
    yield "you", min(1.0, 5 * _share(sum(w in ("you", "your", "you're", "you'd", "you'll") for w in words), n))
    yield "they", min(1.0, 5 * _share(sum(w in ("they", "them", "their", "he", "she", "him", "her") for w in words), n))
    yield "asks", _share(text.count("?"), len(sentences)) if text.count("?") <= len(sentences) else 1.0
    yield "ends_asking", float(text.endswith("?"))


def _faults(out: Mapping[str, float], text: str, words: list[str], known: set[str]) -> Pairs:
    """Zero for nearly every honest answer, so that preferences among honest answers have no say in their price."""
    mine = _stems(words)
    overlap = _share(len(mine & known), len(mine))
    yield "fault_loop", max(0.0, out["repeat_4"] - 0.1)
    yield "fault_repeat", max(0.0, out["repeat_2"] - 0.25)
    yield "fault_same_sentence", max(0.0, out["repeat_sentence"] - 0.1)
    yield "fault_parrot", max(0.0, out["echo"] - 0.3)
    yield "fault_whole_query", max(0.0, out["echo_all"] - 0.6) if len(words) > 3 else 0.0
    yield "fault_cut_off", float(text[-1:] not in _ENDINGS)
    yield "fault_off_topic", max(0.0, 0.08 - overlap) / 0.08 * min(1.0, len(mine) / 15) if known else 0.0


def dense_map(messages: Sequence[Message], response: str) -> dict[str, float]:
    """Every dense feature by name; see `dense`."""
    text = _clean(response)
    lower = text.lower()
    words = _WORD.findall(lower)
    sentences = [s.strip(" .!?\"'*-") for s in _SENTENCE.findall(lower)]
    sentences = [s for s in sentences if s]
    turns = [_WORD.findall(_clean(m["content"]).lower()) for m in messages[-8:]] or [[]]
    query = " ".join(turns[-1])
    past = [w for turn in turns[:-1] for w in turn]
    out = dict(_repetition(words, sentences))
    out.update(_relevance(words, turns[-1], past))
    out.update(_shape(text, words, sentences))
    out.update(_voice(text, words, sentences))
    out.update(_faults(out, text, words, _stems(turns[-1]) | _stems(past)))
    out["risky"] = min(1.0, len(_RISK.findall(lower)) / 4)
    acts = {name: min(1.0, (len(p.findall(lower)) / 3) ** 0.5) for name, p in _PHRASES.items()}
    out.update(acts)
    risk = min(1.0, len(_RISK.findall(query)) / 2)
    rude = min(1.0, len(_PHRASES["toxic"].findall(query)) / 2)
    for act in ("refuse", "warn", "sorry", "unsure", "clarify", "comply", "agree", "support", "curious", "toxic"):
        out[f"risk_{act}"] = risk * acts[act]
    for name in ("ends_asking", "list", "you", "answers_query"):
        out[f"risk_{name}"] = risk * out[name]
    for name in ("refuse", "comply", "agree"):
        out[f"rude_{name}"] = rude * out[name]
    return out


NAMES: tuple[str, ...] = tuple(dense_map([], ""))


def dense(messages: Sequence[Message], response: str) -> npt.NDArray[np.float64]:
    """Facts about one response, float64, shape (len(NAMES),), each within about [-1, 1.5]."""
    values = dense_map(messages, response)
    return np.array([round(values[name], 6) for name in NAMES], dtype=np.float64)


def _terms(text: str) -> set[str]:
    """Three to five letters inside words, and runs of two or three words with their punctuation."""
    tokens = _TOKEN.findall(text)
    terms = {" ".join(tokens[i : i + n]) for n in (2, 3) for i in range(len(tokens) - n + 1)}
    for word in {f" {word} " for word in text.split()}:
        terms.update(word[i : i + n] for n in (3, 4, 5) for i in range(max(1, len(word) - n + 1)))
    return terms


def hashed(response: str) -> tuple[npt.NDArray[np.int64], float]:
    """Buckets in [0, BUCKETS) of the text's distinct terms, sorted, int64, shape (k,); and each one's value, 1 / sqrt(k).

    That value makes the vector's length 1 however long the text is; crc32 is the same in every process.
    """
    buckets = sorted({zlib.crc32(t.encode("utf-8", "replace")) % BUCKETS for t in _terms(_clean(response).lower())})
    return np.array(buckets, dtype=np.int64), round(len(buckets) ** -0.5, 6) if buckets else 0.0
