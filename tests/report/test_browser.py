"""The report in a real browser: inert, usable by mouse and keyboard, quick, accessible."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from tests import pairs
from tests.report import hostile
from tests.report.browser import Opened, grave

ROWS = 2000


@pytest.fixture(scope="module")
def data(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = pairs.data_set(tmp_path_factory.mktemp("report") / "out", tiny_tokenizer, ROWS, rows_per_file=1000)
    assert main(["report", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def hostile_report(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = hostile.data_set(tmp_path_factory.mktemp("hostile") / "out", tiny_tokenizer)
    assert main(["report", str(out)]) == 0
    return out / "report.html"


def test_opens_without_a_complaint_or_a_request(browser: Any, data: Path) -> None:
    opened = Opened(browser, data / "report.html")
    assert opened.page.locator("figure > svg.pygal-chart").count() == 8
    assert opened.status == "2000 of 2000 pairs"
    assert (data / "report.html").stat().st_size < 8_000_000
    opened.settle()


def test_the_policy_blocks_what_is_not_ours(browser: Any, data: Path) -> None:
    opened = Opened(browser, data / "report.html")
    opened.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
        " document.body.insertAdjacentHTML('beforeend', '<img src=https://example.org/x.png onerror=\"window.ran = 1\">'); }"
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in opened.complaints)


def test_search_filters_and_sort(browser: Any, data: Path) -> None:
    table = open_dataset(data).to_table(["id", "reward_revised", "reward_initial", "edit_distance"]).to_pylist()
    gains = {row["id"]: row["reward_revised"] - row["reward_initial"] for row in table}
    opened = Opened(browser, data / "report.html")
    page = opened.page
    page.fill("#search", table[7]["id"])
    assert opened.status == "1 of 2000 pairs" and opened.row == table[7]["id"]
    page.fill("#search", "no such text anywhere")
    assert opened.status == "0 of 2000 pairs" and page.locator("#row").text_content() == "No row matches."
    page.click("text=Reset")
    page.fill("#gain-min", "1.5")
    # The page knows four decimals.
    assert opened.status == f"{sum(round(gain, 4) >= 1.5 for gain in gains.values())} of 2000 pairs"
    page.fill("#distance-max", "0.1")
    both = sum(round(gains[r["id"]], 4) >= 1.5 and round(r["edit_distance"], 4) <= 0.1 for r in table)
    assert 0 < both < 2000 and opened.status == f"{both} of 2000 pairs"
    page.click("text=Reset")
    page.select_option("#sort", "reward_gain:-1")
    assert gains[opened.row] == pytest.approx(max(gains.values()), abs=1e-4)
    page.select_option("#reason", "inaccuracy")
    assert opened.status == "2000 of 2000 pairs"
    page.select_option("#kind", "rejects")
    assert opened.status == "2 of 2 rejected rows"
    assert "rejected at sample: truncated" in str(page.locator("#row").text_content())
    opened.settle()


def test_keyboard_and_deep_link(browser: Any, data: Path) -> None:
    opened = Opened(browser, data / "report.html")
    first = opened.row
    opened.page.keyboard.press("j")
    second = opened.row
    assert second != first and opened.page.url.endswith(f"#row={second}")
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("p")
    assert opened.row == second
    opened.page.keyboard.press("p")
    assert opened.row == first
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("jj")
    assert opened.page.input_value("#search") == "jj"
    opened.settle()
    linked = Opened(browser, data / "report.html", f"#row={second}")
    assert linked.row == second
    linked.page.evaluate("location.hash = '#row=nothere'")
    linked.page.wait_for_timeout(50)
    assert linked.status == "The row nothere is not among those shown here."


def test_tokens_have_their_stored_ids_weights_and_marks(browser: Any, data: Path) -> None:
    row = open_dataset(data).to_table().slice(3, 1).to_pylist()[0]
    opened = Opened(browser, data / "report.html", f"#row={row['id']}")
    start = len(row["prompt_input_ids"])
    opened.page.select_option("#layout", "side")
    for side in ("initial", "revised"):
        shown = opened.page.locator(f".answer.{side} .tok")
        facts = shown.evaluate_all("all => all.map(t => [t.dataset.facts, t.className])")
        stored = zip(
            row[f"{side}_input_ids"][start:], row[f"{side}_weights"][start:], row[f"{side}_ops"][start:], strict=True
        )
        for n, ((told, kind), (id_, weight, op)) in enumerate(zip(facts, stored, strict=True)):
            assert told.startswith(f"token {n}  id {id_}  weight {weight:g}  ")
            mark = {"initial": "del", "revised": "ins"}[side] if op else "kept"
            tint = "up w4" if weight == 1 else "down w2" if weight == -0.5 else "w0"
            assert kind == f"tok {mark} {tint}", "marked by the side that it is on, coloured by its weight's sign"
        signs = shown.locator(".sign").count()
        assert signs > 0 or not any(row[f"{side}_ops"][start:])
    opened.page.locator(".answer.revised .tok").first.hover()
    assert str(opened.page.locator("#token").text_content()).startswith("token 0  id ")
    opened.settle()


def test_inline_is_the_default_and_clean_text_has_no_marks(browser: Any, data: Path) -> None:
    row = open_dataset(data).to_table().slice(3, 1).to_pylist()[0]
    opened = Opened(browser, data / "report.html", f"#row={row['id']}")
    start = len(row["prompt_input_ids"])
    marked = {kind: opened.page.locator(f"#row .answer.inline .{kind}").all_text_contents() for kind in ("del", "ins")}
    kept = opened.page.locator("#row .answer.inline .kept").all_text_contents()
    assert "".join(text.lstrip("−+") for text in [*marked["del"]]) or not any(row["initial_ops"][start:])
    assert len(kept) < sum(op == 0 for op in row["revised_ops"][start:]), "kept tokens are joined into runs"
    opened.page.select_option("#layout", "clean")
    assert opened.page.locator("#row .tok").count() == 0
    assert opened.page.locator("#row .sides .text").all_text_contents() == [row["initial"], row["revised"]]
    opened.settle()


def test_the_first_screen_shows_a_pair_in_red_and_green(browser: Any, data: Path) -> None:
    opened = Opened(browser, data / "report.html", viewport={"width": 1280, "height": 800})
    for part in (".funnel", "#hero .tok.up", "#hero .tok.down"):
        box = opened.page.locator(part).first.bounding_box()
        assert box["y"] + 20 < 800, part
    colours = opened.page.evaluate(
        "['up', 'down'].map(c => getComputedStyle(document.querySelector(`#hero .${c}`)).backgroundColor)"
    )
    assert all(colour.startswith("rgba") for colour in colours) and colours[0] != colours[1]
    opened.page.click("#hero a")
    assert opened.page.url.endswith(f"#row={opened.row}")
    opened.settle()


def test_a_review_by_keyboard_is_saved_and_applied(browser: Any, hostile_report: Path, tmp_path: Path) -> None:
    opened = Opened(browser, hostile_report)
    page = opened.page
    page.fill("#reviewer", "<b>ann</b>")
    page.keyboard.press("k")
    assert page.input_value("#reviewer") == "<b>ann</b>k", "in a field a key is a letter"
    page.fill("#reviewer", "<b>ann</b>")
    page.keyboard.press("Escape")
    rows = []
    for key in "kd":
        rows.append(opened.row)
        page.keyboard.press(key)
    rows.append(opened.row)
    assert len(set(rows)) == 3, "each decision goes on to the next row"
    page.keyboard.press("e")
    text = page.input_value("#edited")
    page.fill("#edited", f"{text} </script><img src=x onerror=window.ran=1>")
    counted = f"3 of {len(hostile.TEXTS)} decided: 1 keep, 1 drop, 1 edit"
    assert page.text_content("#counter") == counted
    assert grave(page, "#viewer") == []
    page.reload()
    assert page.text_content("#counter") == counted, "decisions stay in the browser"
    page.select_option("#decided", "drop")
    assert opened.row == rows[1]
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "decisions.json")
    saved = json.loads((tmp_path / "decisions.json").read_text("utf-8"))
    assert [(one["id"], one["decision"]) for one in saved["decisions"]] == list(
        zip(rows, ("keep", "drop", "edit"), strict=True)
    )
    assert page.evaluate("window.ran") is None and page.locator("#viewer img").count() == 0
    assert opened.complaints == []
    out = tmp_path / "out"
    words = ["--decisions", str(tmp_path / "decisions.json"), "--out", str(out)]
    assert main(["review", str(hostile_report.parent), *words]) == 0
    review = open_dataset(out).manifest["review"]
    assert (review["keep"], review["drop"], review["edit"]) == (1, 1, 1) and review["reviewers"] == ["<b>ann</b>"]
    again = Opened(browser, out / "report.html")
    assert again.page.evaluate("window.ran") is None
    assert "<b>ann" not in (out / "README.md").read_text("utf-8")
    again.settle()


def test_only_rows_in_sight_are_in_the_document(browser: Any, data: Path) -> None:
    """What keeps thousands of pairs quick; how quick is measured in tests/benchmarks/report.py."""
    opened = Opened(browser, data / "report.html")
    drawn = opened.page.locator("#list li[data-n]")
    assert 0 < drawn.count() < 40
    opened.page.evaluate("document.getElementById('list').scrollTop = 1e7")
    opened.page.wait_for_selector(f"#list li[data-n='{ROWS - 1}']", state="attached")
    assert drawn.count() < 40
    opened.settle()


def test_hostile_rows_are_inert_and_visible(browser: Any, hostile_report: Path) -> None:
    opened = Opened(browser, hostile_report)
    seen = ""
    for _ in range(len(hostile.TEXTS) + 1):
        seen += str(opened.page.locator("#row").text_content())
        opened.page.keyboard.press("j")
    opened.page.select_option("#kind", "rejects")
    opened.page.select_option("#layout", "inline")
    assert opened.page.evaluate("window.ran") is None
    assert opened.page.locator("#row img, #row script, #row a").count() == 0
    for text in (
        "<script>window.ran = 1</script>",
        "</script>",
        "</style>",
        "javascript:",
        "onerror=",
        "⟨202e⟩",
        "⟨001b⟩",
        "⍽",
    ):
        assert text in seen, text
    assert "more characters are in the data set" in seen
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 1280
    written = hostile_report.read_text("utf-8").split('id="data"')[0]
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x1b]", written) and "&lt;202e&gt;evil" in written
    opened.settle()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_accessible_in_light_and_dark_and_on_a_phone(browser: Any, data: Path, scheme: str, width: int) -> None:
    opened = Opened(browser, data / "report.html", color_scheme=scheme, viewport={"width": width, "height": 800})
    page = opened.page
    assert grave(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 1000:
        return
    page.select_option("#layout", "inline")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert grave(page, "#viewer") == []
    page.select_option("#kind", "rejects")
    assert grave(page, "#viewer") == []


def test_a_phone_holds_words_of_any_length(browser: Any, hostile_report: Path) -> None:
    opened = Opened(browser, hostile_report, viewport={"width": 390, "height": 800})
    for _ in hostile.TEXTS:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
        opened.page.keyboard.press("j")
    opened.settle()


def test_prints_in_light_with_the_marks(browser: Any, data: Path) -> None:
    opened = Opened(browser, data / "report.html", color_scheme="dark")
    dark = opened.page.evaluate("getComputedStyle(document.querySelector('#row')).backgroundColor")
    opened.page.emulate_media(media="print")
    assert dark != "rgb(255, 255, 255)"
    assert (
        opened.page.evaluate("getComputedStyle(document.querySelector('#row')).backgroundColor") == "rgb(255, 255, 255)"
    )
    assert opened.page.evaluate("getComputedStyle(document.querySelector('.tok')).printColorAdjust") == "exact"
    assert not opened.page.locator("#filters").is_visible()


def test_the_accepted_band_is_drawn_to_its_limits(browser: Any, data: Path) -> None:
    opened = Opened(browser, data / "report.html")
    chart = opened.page.locator("figure.bars", has_text="Edit distance")
    band, plot = (
        chart.locator(selector).first.bounding_box()
        for selector in (".series.serie-0 rect.rect", ".plot > .background")
    )
    # 0 to 0.8 of an axis from 0 to 1, as high as the highest bar.
    highest = max(box.bounding_box()["height"] for box in chart.locator("svg .series.serie-1 rect.rect").all())
    assert band["height"] == pytest.approx(highest, abs=1)
    assert 0.7 < band["width"] / plot["width"] < 0.85
    assert [name.strip() for name in chart.locator(".key li").all_text_contents()] == ["accepted", "published"]


def test_the_button_turns_light_and_dark(browser: Any, data: Path) -> None:
    opened = Opened(browser, data / "report.html", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    before = opened.page.evaluate(background)
    opened.page.click("#theme")
    assert opened.page.evaluate(background) != before
