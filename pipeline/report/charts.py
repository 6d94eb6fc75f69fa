"""The report's charts as SVG by pygal, without its scripts and styles: those are blocked by the page's policy.

Every chart comes with its numbers as a table, so that nothing depends on seeing it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from pipeline.report.histogram import Histogram

_SIZE = {"width": 560, "height": 300}


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure. note: what a reader has to know besides; header and rows: the numbers behind it."""

    title: str
    svg: Markup
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def distribution(title: str, of: Histogram, unit: str, note: str = "") -> Chart:
    """Outlines of histograms, each with another dash; the area as share of each distribution's own rows."""
    chart = _chart("XY", show_dots=False, x_title=unit, y_title="% of rows")
    for name, counts in of.counts.items():
        total = max(1, sum(counts))
        points = [(of.edges[0], 0.0)]
        for left, right, count in zip(of.edges, of.edges[1:], counts, strict=False):
            points += [(left, 100 * count / total), (right, 100 * count / total)]
        chart.add(name, [*points, (of.edges[-1], 0.0)])
    return _finished(chart, title, note, *_bins(of))


def bars(title: str, of: Histogram, unit: str, note: str = "", band: tuple[float, float] | None = None) -> Chart:
    """Filled bars of rows a bin. band: what is accepted, drawn as a strip along the axis."""
    chart = _chart(
        "Histogram", x_title=unit, y_title="rows", **({"xrange": (of.edges[0], of.edges[-1])} if of.edges else {})
    )
    for name, counts in of.counts.items():
        places = zip(counts, of.edges, of.edges[1:], strict=False)
        chart.add(name, [(count, left, right) for count, left, right in places if count])
    if band and of.counts:
        chart.add("accepted band", [(max(max(counts) for counts in of.counts.values()) * 0.03, *band)])
    return _finished(chart, title, note, *_bins(of))


def counts(title: str, of: dict[str, int], note: str = "") -> Chart:
    """Horizontal bars, one a name, the most frequent at the top."""
    ordered = sorted(of.items(), key=lambda item: (-item[1], item[0]))
    total = max(1, sum(of.values()))
    rows = [[name, f"{count:,}", f"{count / total:.1%}"] for name, count in ordered]
    chart = _chart("HorizontalBar", show_legend=False, x_labels=[_short(name) for name, _ in reversed(ordered)])
    chart.add("rows", [count for _, count in reversed(ordered)])
    return _finished(chart, title, note, ("", "rows", "share"), rows)


def shares(title: str, of: dict[str, dict[str, int]], note: str = "") -> Chart:
    """Stacked horizontal bars of 100 %: for each name its parts."""
    parts = list(dict.fromkeys(part for counted in of.values() for part in counted))
    totals = {name: max(1, sum(counted.values())) for name, counted in of.items()}
    chart = _chart("HorizontalStackedBar", x_labels=list(of), x_title="% of tokens", range=(0, 100))
    for part in parts:
        chart.add(part, [100 * counted.get(part, 0) / totals[name] for name, counted in of.items()])
    rows = [
        [name, part, f"{counted.get(part, 0):,}", f"{counted.get(part, 0) / totals[name]:.1%}"]
        for name, counted in of.items()
        for part in parts
    ]
    return _finished(chart, title, note, ("answer", "operation", "tokens", "share"), rows)


def _chart(kind: str, **options: Any) -> Any:
    import pygal

    chart = getattr(pygal, kind)(
        js=(),
        css=(),
        disable_xml_declaration=True,
        no_prefix=True,
        legend_at_bottom=True,
        truncate_legend=40,
        max_scale=6,
        margin=8,
        no_data_text="no data",
        **_SIZE,
        **options,
    )
    chart.x_label_rotation = 0
    return chart


def _finished(chart: Any, title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Chart:
    chart.add_xml_filter(_cleaned(title))
    # pygal escapes what it writes as text: it builds an element tree.
    return Chart(title, Markup(chart.render()), note, header, rows)  # noqa: S704


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
    return name if len(name) <= 28 else f"{name[:27]}…"
