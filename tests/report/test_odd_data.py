"""Reports and comparisons of data sets without rows, rewards or Latin letters, and of hostile ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.dataset.measures import histogram
from pipeline.labels.alignment import KEEP
from pipeline.report import sample
from tests import pairs
from tests.report import hostile
from tests.report.browser import Opened, grave

Row = dict[str, Any]


@pytest.fixture
def made(tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A published data set of so many rows, each changed."""
    own = pairs.pairs

    def make(count: int, **changes: Any) -> Path:
        def changed(count: int, seed: int = 0) -> Iterator[Row]:
            yield from (row | changes for row in own(count, seed))

        monkeypatch.setattr(pairs, "pairs", changed)
        return pairs.data_set(tmp_path / f"out{count}", tiny_tokenizer, count)

    return make


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one(browser: Any, made: Callable[..., Path], count: int) -> None:
    opened = Opened(browser, made(count) / "report.html")
    assert opened.status == f"{count} of {count} pairs"
    assert opened.page.locator("figure", has_text="no data").count() == (0 if count else 7)
    opened.page.keyboard.press("j")
    opened.page.select_option("#kind", "rejects")
    opened.settle()


def test_an_empty_set_opens_on_its_rejects_with_near_misses(
    browser: Any, made: Callable[..., Path], tmp_path: Path
) -> None:
    data = made(6)
    ids = [row["id"] for row in open_dataset(data).to_table(["id"]).to_pylist()]
    decisions = [{"id": row_id, "decision": "drop"} for row_id in ids]
    run = open_dataset(data).manifest["run_digest"]
    content = {"format": "figa-review", "run_digest": run, "reviewer": "ann", "decisions": decisions}
    (tmp_path / "decisions.json").write_text(json.dumps(content), "utf-8")
    words = ["--decisions", str(tmp_path / "decisions.json"), "--out", str(tmp_path / "empty")]
    assert main(["review", str(data), *words]) == 0
    opened = Opened(browser, tmp_path / "empty" / "report.html")
    assert opened.status == "6 of 6 rejected rows"
    assert "No pair survived" in str(opened.page.text_content("#hero"))
    assert "Before you use this data set" in str(opened.page.text_content("#overview"))
    examples = opened.page.locator("caption", has_text="Rejected rows, by reason").locator("xpath=..").locator("a")
    assert examples.count() == 3
    examples.nth(1).click()
    assert opened.page.url.endswith(f"#row={opened.row}") and opened.row in ids
    opened.settle()


def test_near_misses_come_first() -> None:
    rejects = [
        {"id": str(n), "stage": "select", "reason": "initial_good_enough", "messages": [], "evidence": json.dumps(said)}
        for n, said in enumerate({"eta1": 0.0, "reward_initial": value} for value in (0.9, 0.1, 0.5, 0.2))
    ]
    shown = sample.Shown(0, 4, rejects=rejects)
    ((reason, count, rows),) = sample.examples(shown, Counter({("select", "initial_good_enough"): 40}))
    assert (reason, count) == ("select: initial_good_enough", 40)
    assert [row_id for row_id, _ in rows] == ["1", "3", "2"] and rows[0][1].endswith("(0.1, limit 0)")


@pytest.mark.parametrize("reward", [None, float("nan"), float("inf")])
def test_rewards_that_are_missing_or_no_numbers(
    browser: Any, made: Callable[..., Path], reward: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = made(5, **dict.fromkeys(("reward_reference", "reward_initial", "reward_revised"), reward))
    opened = Opened(browser, out / "report.html")
    text = str(opened.page.locator("main").text_content())
    assert "nan" not in text.lower() and "Infinity" not in text and "gain –" in text
    opened.page.select_option("#sort", "reward_gain:-1")
    opened.page.fill("#gain-min", "0")
    assert opened.status == "0 of 5 pairs"
    opened.settle()
    assert main(["show", str(out)]) == 0


def test_letters_of_several_bytes_stay_whole(browser: Any, made: Callable[..., Path]) -> None:
    texts = {"initial": "שלום עולם 你好 👩🏽‍🚀", "revised": "שלום לעולם 你好， 👩🏽‍🚀"}
    opened = Opened(browser, made(2, **texts) / "report.html")
    opened.page.select_option("#layout", "side")
    for side, text in texts.items():
        shown = str(opened.page.locator(f".answer.{side}").text_content())
        plain = "".join(c for c in shown if c not in "+−±‥∅").replace("⟨200d⟩", "\u200d")
        assert plain == text and shown.count("∅") == 1
    told = opened.page.locator(".answer.initial .tok").first.get_attribute("data-facts")
    assert told and told.startswith("token 0  id ") and "and token 1  id " in told
    opened.settle()


def test_a_comparison_of_hostile_rows(browser: Any, tiny_tokenizer: Path, tmp_path: Path) -> None:
    first = hostile.data_set(tmp_path / "first", tiny_tokenizer)
    second = hostile.data_set(
        tmp_path / "second", tiny_tokenizer, revised="<img src=x onerror=window.ran=1> \u202eevil"
    )
    page = tmp_path / "page.html"
    assert main(["compare", str(first), str(second), "--html", str(page)]) == 0
    for scheme, width in (("light", 1300), ("dark", 390)):
        opened = Opened(browser, page, color_scheme=scheme, viewport={"width": width, "height": 800})
        assert opened.page.evaluate("window.ran") is None and opened.page.locator("main img, main a").count() == 0
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.locator(".tok.ins", has_text="<202e>evil").count() == len(hostile.TEXTS)
        assert opened.page.locator(".tok.ins", has_text="<img src=x onerror=window.ran=1>").count() > 0
        assert grave(opened.page) == []
        opened.settle()


def test_a_comparison_with_an_empty_set_and_with_another_tokenizer(
    made: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, empty = made(3), made(0)
    assert main(["compare", str(full), str(empty), "--html", str(tmp_path / "page.html")]) == 0
    assert "0 rows in both" in capsys.readouterr().out
    from pipeline.report.comparison import compare as compared

    found = compared(full, empty)
    assert found.note == ""
    found.sides[1].manifest["labels"]["fingerprint"] = "of another template"
    assert found.note == ""
    found.sides[1].manifest["labels"]["identity"]["tokenizer"] = "another"
    assert "different tokenizers" in found.note


def test_every_finite_value_is_in_a_bin() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    values[:3] = np.nan, np.inf, -np.inf
    made = histogram({"all": values, "one": values[5:6], "none": values[:3]})
    assert {name: sum(counts) for name, counts in made.counts.items()} == {"all": 997, "one": 1}
    for value in values[3:200]:
        assert sum(histogram({"it": np.array([value, value - 1], np.float32)}).counts["it"]) == 2


def test_a_long_pairs_only_edit_is_shown_with_what_is_around_it() -> None:
    kept = [KEEP] * 9000
    assert sample._start([[*kept, 1], [*kept, 1, KEEP]]) == 9000 - sample._CONTEXT
    assert sample._start([kept[:3000], kept[:3000]]) == 0


def test_bins_end_at_a_threshold() -> None:
    gains = np.array([-0.5, -0.01, 0.0, 0.02, 0.7])
    found = histogram({"gains": gains}, through=0.0)
    place = min(range(len(found.edges)), key=lambda n: abs(found.edges[n]))
    assert abs(found.edges[place]) < 1e-12
    assert sum(found.counts["gains"][:place]) == 2 and sum(found.counts["gains"]) == 5
