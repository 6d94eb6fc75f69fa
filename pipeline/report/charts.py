"""The report's charts as SVG by pygal, without its scripts and styles, which the page's policy blocks.

Every chart comes with its numbers as a table, so that nothing depends on seeing it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import pygal
from markupsafe import Markup
from pygal.style import Style

from pipeline.dataset.measures import Histogram, Numbers
from pipeline.text import one_line, visible

_LETTER = 2.2  # per cent of a bar that a letter of a part's name takes


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure, and the numbers behind it as a table."""

    title: str
    svg: Markup
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str  # lines, bars, counts or parts: the style of the marks
    key: Sequence[tuple[int, str]] = ()  # names of the series, each with the number of its style


def distribution(
    title: str, of: Histogram, unit: str, note: str = "", limits: Mapping[str, float] | None = None
) -> Chart:
    """Outlines of histograms, each with its own dash; in per cent of each distribution's own rows. limits: upright lines."""
    highest = 0.0
    limits = limits if of.edges else None
    chart = _chart(pygal.XY, show_dots=False, x_title=unit, y_title="% of rows")
    for name, counts in of.counts.items():
        total = max(1, sum(counts))
        points = [(of.edges[0], 0.0)]
        for edges, count in zip(pairwise(of.edges), counts, strict=True):
            points += [(edge, 100 * count / total) for edge in edges]
        highest = max(highest, *(height for _, height in points))
        chart.add(name, [*points, (of.edges[-1], 0.0)])
    key = list(enumerate(of.counts))
    # Styles of limits follow those of the three distributions that there can be.
    for number in range(len(of.counts), 3 if limits else 0):
        chart.add(str(number), [])
    for number, (name, limit) in enumerate((limits or {}).items(), 3):
        chart.add(name, [(limit, 0.0), (limit, highest)])
        key.append((number, f"{name} = {limit:.3g}"))
    return Chart(title, _svg(chart, title), note, *_bins(of), kind="lines", key=key)


def dots(title: str, x: Numbers, y: Numbers, unit: str, y_unit: str, note: str = "") -> Chart:
    """One dot per row, of 500 at most, evenly spaced in stored order; as numbers the median of y for each fifth of x."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite].astype(np.float64), y[finite].astype(np.float64)
    chart = _chart(pygal.XY, stroke=False, dots_size=2, x_title=unit, y_title=y_unit)
    step = -(-len(x) // 500) or 1
    chart.add("rows", list(zip(x[::step].tolist(), y[::step].tolist(), strict=True)))
    fifths = [part for part in np.array_split(np.argsort(x, kind="stable"), 5) if len(part)]
    rows = [[f"{x[p[0]]:.3g} to {x[p[-1]]:.3g}", f"{len(p):,}", f"{np.median(y[p]):.3g}"] for p in fifths]
    return Chart(title, _svg(chart, title), note, (unit, "rows", f"median {y_unit}"), rows, kind="dots")


def bars(title: str, of: Histogram, unit: str, note: str = "", band: tuple[float, float] | None = None) -> Chart:
    """Filled bars of rows per bin. band: the accepted values, shaded over the whole height as far as the edges go."""
    most = max((max(counts) for counts in of.counts.values()), default=0)
    chart = _chart(pygal.Histogram, x_title=unit, y_title="rows", **_whole_rows(most))
    series: dict[str, list[tuple[int | None, float, float]]] = {"accepted": []} if of.edges else {}
    if band and of.edges:
        low, high = max(band[0], of.edges[0]), min(band[1], of.edges[-1])
        series["accepted"] = [(most, low, high)] if low < high else []
    for name, counts in of.counts.items():
        marks = [(count, *edges) for edges, count in zip(pairwise(of.edges), counts, strict=True) if count]
        # The first has no height: it keeps the axis as wide as the edges.
        series[name] = [(None, of.edges[0], of.edges[-1]), *marks]
    for name, drawn in series.items():
        chart.add(name, drawn)
    key = [(n, name) for n, name in enumerate(series) if name != "accepted" or series[name]]
    return Chart(title, _svg(chart, title), note, *_bins(of), kind="bars", key=key)


def counts(title: str, of: dict[str, int], note: str = "") -> Chart:
    """Horizontal bars, one per name, the most frequent at the top."""
    ordered = sorted(of.items(), key=lambda item: (-item[1], item[0]))
    total = max(1, sum(of.values()))
    rows = [[name, f"{count:,}", f"{count / total:.1%}"] for name, count in ordered]
    names = [one_line(visible(name), 24) for name, _ in reversed(ordered)]
    chart = _chart(pygal.HorizontalBar, x_labels=names, **_whole_rows(max(of.values(), default=0)))
    chart.add("rows", [count for _, count in reversed(ordered)])
    return Chart(title, _svg(chart, title), note, ("", "rows", "share"), rows, kind="counts")


def shares(title: str, of: dict[str, list[int]], parts: Sequence[str], note: str = "") -> Chart:
    """Stacked horizontal bars of 100 %: for each name its counts of the parts, the first name at the top."""
    totals = {name: max(1, sum(counted)) for name, counted in of.items()}
    upwards = list(reversed(of))
    chart = _chart(
        pygal.HorizontalStackedBar, x_labels=upwards, x_title="% of tokens", range=(0, 100), print_labels=True
    )
    for n, part in enumerate(parts):
        percent = [100 * of[name][n] / totals[name] for name in upwards]
        chart.add(part, [{"value": value, "label": part if value >= _LETTER * len(part) else ""} for value in percent])
    rows = [
        [name, part, f"{count:,}", f"{count / totals[name]:.1%}"]
        for name, counted in of.items()
        for part, count in zip(parts, counted, strict=True)
    ]
    header = ("answer", "operation", "tokens", "share")
    return Chart(title, _svg(chart, title), note, header, rows, kind="parts", key=list(enumerate(parts)))


def _chart(kind: type[Any], **options: Any) -> Any:
    layout = {"width": 420, "height": 230, "max_scale": 6, "margin": 6, "spacing": 6, "truncate_label": -1}
    bare = {"js": (), "css": (), "disable_xml_declaration": True, "no_prefix": True, "show_legend": False}
    # The style sheet sets the fonts; from these sizes pygal reckons the room for labels.
    style = Style(label_font_size=12, title_font_size=12)
    return kind(style=style, no_data_text="no data", x_label_rotation=0, **layout, **bare, **options)


def _whole_rows(most: int) -> dict[str, Any]:
    """At most six ticks for an axis that counts rows: no fractions of a row."""
    if not most:
        return {}  # pygal draws no labels on an axis without values
    step = next(step for step in (n * 10**power for power in range(20) for n in (1, 2, 5)) if most <= 5 * step)
    return {"y_labels": [{"value": value, "label": f"{value:,}"} for value in range(0, most + 1, step)]}


def _svg(chart: Any, title: str) -> Markup:
    """The chart without comments, scripts, styles and tooltips, named for screen readers."""

    def clean(root: Element) -> Element:
        for parent in list(root.iter()):
            for child in list(parent):
                if not isinstance(child.tag, str) or child.tag in ("style", "script", "title", "desc"):
                    parent.remove(child)
            parent.attrib.pop("style", None)
        root.attrib.pop("id", None)
        root.set("role", "img")
        root.set("aria-label", f"Chart: {title}. The numbers are in the table below it.")
        return root

    chart.add_xml_filter(clean)
    # pygal builds an element tree, which escapes every text.
    return Markup(chart.render())  # noqa: S704


def _bins(of: Histogram) -> tuple[Sequence[str], list[list[str]]]:
    rows = [
        [f"{left:.3g} to {right:.3g}", *(f"{count:,}" for count in row)]
        for (left, right), *row in zip(pairwise(of.edges), *of.counts.values(), strict=True)
        if any(row)
    ]
    return ("bin", *of.counts), rows
