"""What a revision's text alone shows, beside draft and reference: no answer, no correction, a copy, a contradiction."""

import re

from rapidfuzz.distance import LCSseq, Levenshtein

from pipeline.config.settings import FilterSettings
from pipeline.errors import RowReject

# A reviser that talks about its task instead of doing it. Each alternative needs a word of the task (a revised *response*,
# the draft that *omits*): "the draft of the contract" and "tips to improve your sleep" are ordinary answers.
_DONE = r"(?:revised|corrected|improved|edited|rewritten|updated|refined|polished|modified|revision|correction)"
_THING = r"(?:draft|response|answer|reply|version|text|message)"
_META = re.compile(
    rf"""
    # "Sure! Here's a corrected version": at the start, and not "… version of your essay"
    \A\W*(?:(?:sure|certainly|okay|ok|of\ course|absolutely|yes)\b\W+)?
        (?:here(?:['’]s|\ is|\ are)|below\ is|this\ is|the\ following\ is)\s+(?:\w+\s+){{0,3}}?
        (?:{_DONE}\s+(?:\w+\s+){{0,2}}?{_THING}|(?:draft|response|answer|reply)\s+with\s+(?:\w+\s+)?(?:corrections|changes|edits))\b
        (?!\s+of\s+(?!(?:the|your|this)\s+(?:draft|response|answer|reply)))
    # "I have revised the draft": at the start of a line
    | ^\W*i(?:['’]ve|\ have)?\s+(?:\w+\s+)?{_DONE}\s+(?:the|your|this)\s+(?:\w+\s+)?(?:draft|response|answer|reply)\b(?!\s+of\b)
    # "Revised response:" as a heading
    | ^\W*(?:the\s+)?{_DONE}\s+(?:draft|response|answer|reply|version)\W{{0,3}}:
    | \b(?:revised|corrected|improved|rewritten|original)\s+(?:draft|response|reply)\b(?!\s+(?:of|to)\b)
    | \breference\s+(?:answer|response|reply)\b
    | \bthe\s+draft(?:\s+(?:response|answer|reply))?\s+(?:\w+ly\s+)?
        (?:omits|omitted|lacks|lacked|leaves\s+out|left\s+out|fails\s+to|failed\s+to|misstates|misstated)\b
    | \bthe\s+draft\s+(?:incorrectly|wrongly|mistakenly)\b
    """,
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_LONG_RUN = re.compile(r"\W{40,}")
_REFUSAL = re.compile(
    r"""
    \A\W*(?:(?:i['’]?m|i\ am)\s+(?:very\ |so\ |really\ )?(?:sorry|afraid)|sorry|i\ apologi[sz]e|my\ apologies|unfortunately)?\W*
    (?:but\s+|that\s+)?
    (?:
        # "I can't help with that", and not "I can't help but smile", "I can't recommend it enough"
        i(?:['’]m|\ am)?\s+(?:can(?:no|['’])t|not\s+able\s+to|unable\s+to|won['’]t|will\s+not)\s+(?:be\s+able\s+to\s+)?
        (?:help(?!\s+but)|assist|provide|answer|comply|fulfil|do\s+(?:that|this)|discuss|engage|participate|generate|create
          |write|produce|share|complete|respond|support|continue|offer|revise|correct|rewrite|edit|process)
        | as\s+an\s+ai(?=\s*,|\s+i\b|\s+(?:language\s+)?(?:model|assistant|chatbot)\b)
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def check_text(revised: str, initial: str, reference: str) -> None:
    """Raises RowReject for what isn't an answer to the query, unless draft or reference show the same pattern."""
    if not revised.strip():
        raise RowReject("empty_revision")
    for reason, pattern in (("meta_talk", _META), ("refusal", _REFUSAL)):
        match = pattern.search(_squeeze(revised))
        if match and not pattern.search(_squeeze(initial)) and not pattern.search(_squeeze(reference)):
            raise RowReject(reason, found=match[0])


def _squeeze(text: str) -> str:
    """The text with long runs of symbols and blanks shortened: the patterns take quadratic time on them."""
    return _LONG_RUN.sub(lambda run: run[0][:10] + run[0][-10:], text)


# A word, or a character of a script that has no spaces.
_NO_SPACES = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+")


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L (Lin, 2004), F1: twice the longest common subsequence of words over both lengths; 0 if both are empty.

    >>> rouge_l("The egg is hard.", "Boil the egg.")
    0.5714285714285714
    """
    mine, theirs = _words(text), _words(reference)
    return 2 * LCSseq.similarity(mine, theirs) / max(1, len(mine) + len(theirs))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def word_distance(text: str, other: str) -> float:
    """Edits of words, in [0, 1]: 0 for the same words in the same order."""
    return Levenshtein.normalized_distance(_words(text), _words(other))


# What is left of a text without white space in lines and without punctuation: "1.5" and "-5" are numbers, and line breaks
# make lists and paragraphs.
_SUBSTANCE = re.compile(r"\s*\n\s*|\d+(?:[.,:]\d+)*|\w+|[^\w\s.,;:!?…\"'“”‘’„«»¿¡、。，！？：；]")
# The least distance to the reference, and from which distance of the draft on it applies: a nearer draft may need no more than
# the correction that makes it the reference.
REFERENCE_DISTANCE, _FAR_DRAFT = 0.2, 0.5


def check_correction(revised: str, initial: str, reference: str, settings: FilterSettings) -> None:
    """Raises RowReject for what corrects nothing of the draft, or replaces it by the reference.

    unchanged              only white space and punctuation differ; in code they count
    copies_reference       the reference, word for word or nearly, where the draft was far from it
    contradicts_reference  `contradiction`
    """
    if "`" not in initial + revised and _substance(initial) == _substance(revised):
        raise RowReject("unchanged", differs_in="white space and punctuation only")
    copied, least = word_distance(revised, reference), settings.min_reference_distance or 0.0
    if copied < least and (draft := word_distance(initial, reference)) > _FAR_DRAFT:
        raise RowReject("copies_reference", reference_distance=copied, at_least=least, distance_of_draft=draft)
    if settings.reject_contradictions and (found := contradiction(revised, initial, reference)):
        raise RowReject("contradicts_reference", kept=found[0], reference=found[1])


def _substance(text: str) -> list[str]:
    return ["\n" if part.isspace() else part for part in _SUBSTANCE.findall(text.strip())]


_DENIES = re.compile(
    r"""
    \A\W*(?:(?:oh|well|sorry|unfortunately|honestly|actually|(?:i['’]m|i\ am)\ (?:\w+\ )?(?:sorry|afraid))\b\W+(?:but\ )?)?
    (?:
        no(?=\s*[,.;:!–—]|\ (?:it|that|this|there|they|you|i|we|he|she)\b)
        | nope\b | not\ (?:quite|really|yet|exactly|true|at\ all)\b | never\b | none\.
        | (?:please\ )?(?:don['’]t|do\ not)\b(?!\ (?:worry|forget|hesitate|miss)) | please\ (?:stop|never)\b
        | (?:absolutely|definitely|certainly|of\ course|probably|better|please)\ not\b
        | i(?:['’]d|\ would)\ (?:rather\ not|(?:strongly\ )?advise\ against|hold\ off|not\ (?:recommend|advise|do))\b
        | i\ (?:wouldn['’]t|won['’]t|will\ not|can(?:['’]t|not|\ not))\ (?!wait|stress|thank|say|help\ but|\w+\ \w+\ enough)
        | (?:i['’]m|i\ am)\ (?:not\ (?:able|going|comfortable|willing)|unable)\b
        | i\ (?:don['’]t|do\ not)\ (?:think|believe|recommend|advise|feel\ comfortable)\b
        | you\ (?:can(?:['’]t|not)|should(?:n['’]t|\ not)|must(?:n['’]t|\ not)|may\ not)\b
        | (?:that|this|it)(?:['’]s|\ is)(?:n['’]t|\ not)\ (?:true|right|correct|safe|legal|allowed|possible|ok|a\ good\ idea)\b
        | (?:that|this|it)(?:['’]s|\ is|\ would\ be)\ (?:illegal|false|wrong|unsafe|dangerous|untrue|a\ (?:crime|myth))\b
        | (?:nein|non|não|nao|nee|nej|нет)\b | bitte\ nicht\b | das\ (?:stimmt|ist)\ nicht\b | je\ ne\ peux\ pas\b
        | ich\ (?:kann|werde|möchte)\b[^.!?]{0,40}\bnicht\b | no\ (?:puedo|posso|es|è)\b | não\ posso\b
        | 不[，,。]|不(?:是|行|能|要|可以|应该)|请不要|いいえ|아니
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_COMPLIES = re.compile(
    r"""
    \A\W*(?:
        (?:yes|yeah|yep|sure(?:\ thing)?|certainly|absolutely|definitely|of\ course|correct|exactly)
            (?=\s*[,.;:!–—]|\ (?:it|that|this|there|they|you|i|we|he|she|here)\b)
        | here(?:['’]s|\ is|\ are)\b | you\ (?:can|could|should|may)\b
        | (?:that|this|it)(?:['’]s|\ is)\ (?:true|right|correct|safe|legal|fine|okay|ok|possible|a\ (?:good|great)\ idea)\b
        | i(?:['’]d|\ would)\ be\ (?:happy|glad)\ to\b | i(?:['’]ll|\ can|\ will)\ help\b
        | (?:ja|klar|sicher|natürlich|gerne?|oui|bien\ sûr|sí|sì|claro|certo|por\ supuesto|sim|да|конечно)\s*[,.!]
        | はい|もちろん|是的|当然|可以|好的|네[,.]|물론
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
# A first sentence with one of these may agree with the reference after all: "Sure, but please don't".
_TURNS = re.compile(
    r"""\b(?:not?|never|cannot|but|however|although|unless|instead|illegal|dangerous|unsafe|harmful|against|nicht|kein\w*|aber|pas|mais|
        pero|não|mas)\b|n['’]t\b|不|但|ない|ません|않|\bне\b""",
    re.IGNORECASE | re.VERBOSE,
)
_CLAUSE = re.compile(r"\b(?:if|when|while|because|since|wenn|falls)\b[^,;]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
# An opening is kept while at most this share of its words is edited.
_KEPT = 0.5


def contradiction(revised: str, initial: str, reference: str) -> tuple[str, str] | None:
    """The opening that a revision kept from the draft, and that of the reference which denies it; None without one.

    What small models do: the draft complies or affirms ("Yes, you can …"), the reference declines or denies ("Please don't"),
    and the revision mends the end and keeps the opening. A heuristic by opening words, English and a few other languages.

    >>> contradiction("Yes, you can. But rarely.", "Yes, you can. Do it daily.", "No, it is toxic.")
    ('Yes, you can.', 'No')
    """
    denied, kept = _DENIES.match(reference[:300]), opening(revised)
    if not denied or not _COMPLIES.match(kept) or turns(kept):
        return None
    return (kept, denied[0].strip()) if word_distance(kept, opening(initial)) <= _KEPT else None


def denies(reference: str) -> bool:
    """Whether a reference begins by declining or denying: "Please don't", "No, ..."."""
    return bool(_DENIES.match(reference[:300]))


def turns(sentence: str) -> bool:
    """Whether a sentence negates or restricts something, other than in a clause of its own: "skip them if they don't fit"."""
    return bool(_TURNS.search(_CLAUSE.sub("", sentence)))


def opening(text: str) -> str:
    """The first sentence, with the second where the first is no more than "Sure!"."""
    first, *rest = _SENTENCE_END.split(text[:1000].strip(), maxsplit=2)
    return f"{first} {rest[0]}".strip() if rest and len(_words(first)) <= 2 else first
