"""Each curation check on rows made for it: what stays, what goes, with which evidence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.loading import load_config
from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, InputError, RowReject
from pipeline.sources import SourceRow
from pipeline.sources import checks as curation
from pipeline.sources.checks.common import ngrams, words

LONG = "the quick brown fox jumps over the lazy dog while seven wizards brew potent black coffee tonight"


def row(query: str, reference: str = "A reply in words.", *turns: str) -> SourceRow:
    said = [query, *turns]
    messages = [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(said)]
    return SourceRow(messages, reference)


def outcome(checked: SourceRow, **settings: Any) -> RowReject | None:
    try:
        for check in curation.checks(SourceSettings(**settings)):
            check(checked)
    except RowReject as reject:
        json.dumps(reject.evidence)
        return reject
    return None


def test_words_see_neither_case_nor_punctuation_nor_compatibility_forms() -> None:
    assert words("The 2nd  Café — ﬁne!") == ["the", "2nd", "café", "fine"]
    assert words("Cafe\u0301") == ["café"]
    # What is written without spaces is compared by the character.
    assert words("東京は2020年、Tokyo!") == ["東", "京", "は", "2020", "年", "tokyo"]
    assert words("한국어 문장") == ["한국어", "문장"]
    assert ngrams(list("abcd"), 3) == ["a b c", "b c d"]
    assert ngrams(list("ab"), 3) == ["a b"]


def test_by_default_only_absurd_lengths_go() -> None:
    assert outcome(row("x")) is None
    assert outcome(row("x" * 100_000, "y" * 100_000)) is None
    reject = outcome(row("x" * 60_000, "y", "x" * 40_000, "x"))
    assert reject and reject.reason == "query_too_long"
    assert reject.evidence == {
        "expected": "at most 100,000 characters (source.max_query_chars)",
        "got": "100,001 characters",
    }


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"min_query_chars": 6}, "query_too_short"),
        ({"max_query_chars": 4}, "query_too_long"),
        ({"min_reference_chars": 10}, "reference_too_short"),
        ({"max_reference_chars": 8}, "reference_too_long"),
        ({"min_query_chars": 5, "max_query_chars": 5, "min_reference_chars": 9, "max_reference_chars": 9}, None),
        ({"max_query_chars": None, "max_reference_chars": None, "min_query_chars": 0, "min_reference_chars": 0}, None),
    ],
)
def test_lengths(settings: dict[str, Any], reason: str | None) -> None:
    reject = outcome(row("12345", "123456789"), **settings)
    assert (reject.reason if reject else None) == reason


def test_languages() -> None:
    german = "Warum gibt es eigentlich Schaltjahre, und wer hat sie erfunden?"
    english = "Why do we have leap years, and who was it that invented them?"
    assert outcome(row(english), languages="en") is None
    reject = outcome(row(german), languages="en")
    assert reject and (reject.reason, reject.evidence["expected"], reject.evidence["got"]) == ("language", "en", "de")
    assert outcome(row(german), languages=("en", "de")) is None
    # What the assistant said doesn't count, and a few letters prove nothing.
    assert outcome(row(english, "r", german * 5, english), languages="en") is None
    assert outcome(row("ok 42"), languages="en") is None
    with pytest.raises(ConfigError, match=r"unknown language 'eng', .*did you mean en"):
        outcome(row("x"), languages=["eng"])


def test_contamination_names_file_row_and_words(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(
        json.dumps({"other": "nothing"}) + "\n" + json.dumps({"question": {"stem": LONG}, "n": 3}) + "\n"
    )
    (tmp_path / "eval.txt").write_text("\ufeffWhat is the capital of France?\nYes.\n")
    files = f"{tmp_path / 'eval.jsonl'},{tmp_path / 'eval.txt'}"
    reject = outcome(
        row("Tell me: THE quick, brown fox! Jumps over the lazy dog while seven wizards… brew?"), decontaminate=files
    )
    assert reject and reject.reason == "contaminated"
    assert reject.evidence["seen_in"] == "eval.jsonl:2"
    assert reject.evidence["got"] == " ".join(LONG.split()[:13])
    # In the reference, or an earlier turn, it is the same; twelve words are not.
    assert outcome(row("q", LONG), decontaminate=files)
    assert outcome(row("q", "r", LONG, "and?"), decontaminate=files)
    assert outcome(row("q")._replace(initial="r", revised=LONG), decontaminate=files)
    assert outcome(row("q")._replace(initial=LONG, revised="r"), decontaminate=files)
    assert outcome(row(" ".join(LONG.split()[:12])), decontaminate=files) is None
    assert outcome(row(" ".join(LONG.split()[:12])), decontaminate=files, decontaminate_words=12)
    (tmp_path / "zh.txt").write_text("中国的首都是哪一座城市？请用一句话回答。\n")
    assert outcome(row("问题：中国的首都是哪一座城市？请用一句话回答！"), decontaminate=str(tmp_path / "zh.txt"))
    # Shorter texts count as a whole, very short ones never.
    found = outcome(row("what is the capital of FRANCE"), decontaminate=files)
    assert found and found.evidence["seen_in"] == "eval.txt:1"
    assert outcome(row("What is the capital of France and of Spain?"), decontaminate=files) is None
    assert outcome(row("Really?", "Yes."), decontaminate=files) is None


def test_evaluation_files_must_be_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "x"}\n{broken\n')
    (tmp_path / "d.jsonl").write_text('{"n": 5}\n')
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    for name, says in (
        ("a.jsonl", "a.jsonl:2: malformed_json"),
        ("b.txt", "b.txt: not readable"),
        ("c", "c: no such file"),
        ("d.jsonl", "d.jsonl: no text"),
    ):
        with pytest.raises(InputError, match=says):
            outcome(row("x"), decontaminate=[str(tmp_path / name)])


PLUGIN = """
seen = []
def pii(messages, reference):
    seen.append((messages, reference))
    messages[0]["content"] = "changed"
    return "pii_email" if "@" in reference else None
def says(messages, reference):
    return "Sounds rude: " + reference
def breaks(messages, reference):
    raise KeyError("no")
def counts(messages, reference):
    return 3
value = 4
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_checks.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_checks", raising=False)
    return "my_checks"


def test_plugins_decide_and_cant_change_the_row(plugin: str) -> None:
    kept = row("q")
    assert outcome(kept, plugins="my_checks:pii") is None
    assert kept.messages[0]["content"] == "q"
    reject = outcome(row("q", "me@example.org"), plugins=["my_checks:pii"])
    assert reject and (reject.reason, reject.evidence["plugin"]) == ("pii_email", "my_checks:pii")
    reject = outcome(row("q", "!"), plugins="my_checks:pii,my_checks:says")
    assert reject and (reject.reason, reject.evidence["got"]) == ("plugin", "Sounds rude: !")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_checks", "not of the form module:function"),
        ("my_checks:__import__('os')", "not of the form module:function"),
        ("no_such_module:f", "can't be imported (ModuleNotFoundError"),
        ("my_checks:nothing", "can't be imported (AttributeError"),
        ("my_checks:value", "is not a function but int"),
        ("my_checks:breaks", "my_checks:breaks failed (KeyError"),
        ("my_checks:counts", "must return None or a reason as text, it returned 3"),
    ],
)
def test_a_bad_plugin_is_one_line(plugin: str, name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        outcome(row("q"), plugins=[name])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_identity_covers_files_and_code(plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eval.txt").write_text(LONG)
    settings = SourceSettings(
        decontaminate=(str(tmp_path / "eval.txt"),), plugins=("my_checks:pii",), languages=("en",), near_duplicates=0.8
    )
    first = curation.identity(settings)
    assert first == curation.identity(settings) != curation.identity(SourceSettings())
    (tmp_path / "eval.txt").write_text(LONG + " more")
    second = curation.identity(settings)
    (tmp_path / "my_checks.py").write_text(PLUGIN + "# edited")
    assert len({str(first), str(second), str(curation.identity(settings))}) == 3


@pytest.mark.parametrize("setting", ["languages=en", "near_duplicates=0.8"])
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    from pipeline.run.intake import Intake

    monkeypatch.setitem(sys.modules, "rensa", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[curation\]'"):
        Intake(load_config(assignments=[f"source.{setting}"]).source, {})


def test_lists_as_typed_on_a_command_line() -> None:
    typed = load_config(
        assignments=["source.mix=0.7,0.3", "source.languages=en, de", "source.plugins=a:b", "source.name=a,b"]
    )
    assert (
        typed.source.mix == (0.7, 0.3) and typed.source.languages == ("en", "de") and typed.source.plugins == ("a:b",)
    )
    assert str(typed.out) == "out/a+b"
    again = load_config(flags={"source.mix": [1, 2], "source.languages": []})
    assert again.source.mix == (1.0, 2.0) and again.source.languages == ()
    for wrong in ("0.7,-1", "0.7,nan", "x"):
        with pytest.raises(ConfigError, match=r"source\.mix"):
            load_config(assignments=[f"source.mix={wrong}"])
