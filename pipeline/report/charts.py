"""The report's charts as SVG by pygal, without its scripts and styles: those are blocked by the page's policy.

Every chart comes with its numbers as a table, so that nothing depends on seeing it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from pipeline.dataset.histogram import Histogram
from pipeline.text import visible

_SIZE = {"width": 420, "height": 230}
_LETTER = 2.2  # per cent of a bar that a letter of a part's name takes


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure. note: what a reader has to know besides; header and rows: the numbers behind it.

    kind: lines, bars, counts or parts, the style of the marks; key: names of the series, each with the number of its style.
    """

    title: str
    svg: Markup
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "bars"
    key: Sequence[tuple[int, str]] = ()


def distribution(title: str, of: Histogram, unit: str, note: str = "") -> Chart:
    """Outlines of histograms, each with another dash; the area as share of each distribution's own rows."""
    chart = _chart("XY", show_dots=False, x_title=unit, y_title="% of rows")
    for name, counts in of.counts.items():
        total = max(1, sum(counts))
        points = [(of.edges[0], 0.0)]
        for left, right, count in zip(of.edges, of.edges[1:], counts, strict=False):
            points += [(left, 100 * count / total), (right, 100 * count / total)]
        chart.add(name, [*points, (of.edges[-1], 0.0)])
    return _finished(chart, title, note, *_bins(of), kind="lines", key=list(enumerate(of.counts)))


def bars(title: str, of: Histogram, unit: str, note: str = "", band: tuple[float, float] | None = None) -> Chart:
    """Filled bars of rows a bin. band: what is accepted, shaded behind them over the whole height, as far as the edges go."""
    most = max((max(counts) for counts in of.counts.values()), default=0)
    chart = _chart("Histogram", x_title=unit, y_title="rows", **_whole(most))
    series: dict[str, list[tuple[int | None, float, float]]] = {"accepted": []} if of.edges else {}
    if band and of.edges:
        low, high = max(band[0], of.edges[0]), min(band[1], of.edges[-1])
        series["accepted"] = [(most, low, high)] if low < high else []
    for name, counts in of.counts.items():
        places = zip(counts, of.edges, of.edges[1:], strict=False)
        # The first has no height: it holds the axis to the edges.
        series[name] = [(None, of.edges[0], of.edges[-1]), *(place for place in places if place[0])]
    for name, marks in series.items():
        chart.add(name, marks)
    key = [(n, name) for n, name in enumerate(series) if name != "accepted" or series[name]]
    return _finished(chart, title, note, *_bins(of), key=key)


def counts(title: str, of: dict[str, int], note: str = "") -> Chart:
    """Horizontal bars, one a name, the most frequent at the top."""
    ordered = sorted(of.items(), key=lambda item: (-item[1], item[0]))
    total = max(1, sum(of.values()))
    rows = [[name, f"{count:,}", f"{count / total:.1%}"] for name, count in ordered]
    names = [_short(name) for name, _ in reversed(ordered)]
    chart = _chart("HorizontalBar", x_labels=names, **_whole(max(of.values(), default=0)))
    chart.add("rows", [count for _, count in reversed(ordered)])
    return _finished(chart, title, note, ("", "rows", "share"), rows, kind="counts")


def shares(title: str, of: dict[str, dict[str, int]], note: str = "") -> Chart:
    """Stacked horizontal bars of 100 %: for each name its parts, the first name at the top."""
    parts = list(dict.fromkeys(part for counted in of.values() for part in counted))
    totals = {name: max(1, sum(counted.values())) for name, counted in of.items()}
    upwards = list(reversed(of))
    chart = _chart("HorizontalStackedBar", x_labels=upwards, x_title="% of tokens", range=(0, 100), print_labels=True)
    for part in parts:
        percent = [100 * of[name].get(part, 0) / totals[name] for name in upwards]
        chart.add(part, [{"value": value, "label": part if value >= _LETTER * len(part) else ""} for value in percent])
    rows = [
        [name, part, f"{counted.get(part, 0):,}", f"{counted.get(part, 0) / totals[name]:.1%}"]
        for name, counted in of.items()
        for part in parts
    ]
    header = ("answer", "operation", "tokens", "share")
    return _finished(chart, title, note, header, rows, kind="parts", key=list(enumerate(parts)))


def _chart(kind: str, **options: Any) -> Any:
    import pygal
    from pygal.style import Style

    chart = getattr(pygal, kind)(
        js=(),
        css=(),
        disable_xml_declaration=True,
        no_prefix=True,
        show_legend=False,
        max_scale=6,
        margin=6,
        spacing=6,
        no_data_text="no data",
        truncate_label=-1,
        # What the style sheet makes of it; from these sizes the room for labels is found.
        style=Style(label_font_size=12, title_font_size=12),
        **_SIZE,
        **options,
    )
    chart.x_label_rotation = 0
    return chart


def _whole(most: int) -> dict[str, Any]:
    """Five ticks or so of an axis that counts rows: no fractions of a row."""
    if not most:
        return {}  # pygal draws no labels on an axis without values
    step = next(step for step in (n * 10**power for power in range(20) for n in (1, 2, 5)) if most <= 5 * step)
    return {"y_labels": [{"value": value, "label": f"{value:,}"} for value in range(0, most + 1, step)]}


def _finished(
    chart: Any, title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[str]], **style: Any
) -> Chart:
    chart.add_xml_filter(_cleaned(title))
    # pygal escapes what it writes as text: it builds an element tree.
    return Chart(title, Markup(chart.render()), note, header, rows, **style)  # noqa: S704


def _cleaned(title: str) -> Callable[[Element], Element]:
    def clean(root: Element) -> Element:
        for parent in list(root.iter()):
            for child in list(parent):
                comment = not isinstance(child.tag, str)
                if comment or child.tag in ("style", "script", "title", "desc"):
                    parent.remove(child)
            parent.attrib.pop("style", None)
        root.attrib.pop("id", None)
        root.set("role", "img")
        root.set("aria-label", f"Chart: {title}. The numbers are in the table below it.")
        return root

    return clean


def _bins(of: Histogram) -> tuple[Sequence[str], list[list[str]]]:
    rows = [
        [f"{left:.3g} to {right:.3g}", *(f"{count:,}" for count in row)]
        for left, right, *row in zip(of.edges, of.edges[1:], *of.counts.values(), strict=False)
        if any(row)
    ]
    return ("bin", *of.counts), rows


def _short(name: str) -> str:
    shown = visible(name)
    return shown if len(shown) <= 24 else f"{shown[:23]}…"
