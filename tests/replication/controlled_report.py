"""The controlled experiment's results as tables and a learning curve per method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: written by python -m tests.replication.controlled -->", "<!-- end of controlled results -->"


def write(results: Sequence[dict[str, Any]], folder: Path) -> str:
    """Replace the marked part of controlled.md in `folder`, and the plot; returns that part."""
    names = list(results[0]["methods"])
    sizes = [point["size"] for point in results[0]["methods"][names[0]]]
    pairs, spent = [result["pairs"] for result in results], sum(result["cpu_seconds"] for result in results)
    part = "\n".join(
        [
            f"- {len(results)} seeds; {min(pairs)} to {max(pairs)} pairs; {spent / 60:.0f} minutes of CPU",
            "",
            *_curves(results, names, sizes),
            "",
            *_differences(results, names, sizes),
            "",
            *_details(results, names, sizes[-1]),
            "",
            "![right answers by number of pairs](controlled.svg)",
        ]
    )
    _plot(results, names, sizes, folder / "controlled.svg")
    page = folder / "controlled.md"
    text = page.read_text("utf-8") if page.exists() else f"# A controlled experiment\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{part}\n{END}{rest.partition(END)[2]}", "utf-8")
    return part


def _curves(results: Sequence[dict[str, Any]], names: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """Right answers per method and number of pairs."""
    lines = [
        "| right answers, % | " + " | ".join(f"{size} pairs" for size in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    start = _shown([result["start"]["right"] for result in results])
    lines.append(f"| start | {' | '.join([start] * len(sizes))} |")
    for name in names:
        cells = [_shown(_points(results, name, number, "right")) for number in range(len(sizes))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _differences(results: Sequence[dict[str, Any]], names: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """Each method's right answers less those of the first, seed by seed: policies differ more than methods do."""
    first, *others = names
    lines = [
        f"| right answers less {first}'s, points | " + " | ".join(f"{size} pairs" for size in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for name in others:
        cells = []
        for number in range(len(sizes)):
            pairs = zip(_points(results, name, number, "right"), _points(results, first, number, "right"), strict=True)
            cells.append(_shown([one - other for one, other in pairs]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _details(results: Sequence[dict[str, Any]], names: Sequence[str], size: int) -> list[str]:
    """Mistakes, style, drift and rates at the largest size."""
    lines = [
        f"| at {size} pairs | usual mistake, % | other mistakes, % | reference's style, % | KL, nats a token | rates chosen |",
        "|---|---:|---:|---:|---:|---|",
    ]
    starts = [result["start"] for result in results]
    cells = [_shown([start[key] for start in starts]) for key in ("slip", "other", "reference_style")]
    lines.append(f"| start | {' | '.join(cells)} | 0 | |")
    for name in names:
        cells = [_shown(_points(results, name, -1, key)) for key in ("slip", "other", "reference_style")]
        rates = ", ".join(f"{rate:g}" for rate in sorted(set(_points(results, name, -1, "rate"))))
        drift = sum(_points(results, name, -1, "kl")) / len(results)
        lines.append(f"| {name} | {' | '.join(cells)} | {drift:.3f} | {rates} |")
    return lines


def _points(results: Sequence[dict[str, Any]], name: str, number: int, key: str) -> list[float]:
    return [result["methods"][name][number][key] for result in results]


def _shown(values: Sequence[float]) -> str:
    """Mean in percent with the half width of a 95 % interval over seeds (Student's t)."""
    mean = 100 * sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    spread = math.sqrt(sum((100 * value - mean) ** 2 for value in values) / (len(values) - 1))
    t = _T95[min(len(values) - 2, len(_T95) - 1)]
    return f"{mean:.1f} ± {t * spread / math.sqrt(len(values)):.1f}"


# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def _plot(results: Sequence[dict[str, Any]], names: Sequence[str], sizes: Sequence[int], path: Path) -> None:
    import pygal

    chart = pygal.Line(
        title="Right answers after training, %",
        x_title="pairs",
        x_labels=[str(size) for size in sizes],
        js=(),
        disable_xml_declaration=True,
        legend_at_bottom=True,
        truncate_legend=-1,
        margin=8,
        width=760,
        height=460,
    )
    for name in names:
        means = [_points(results, name, number, "right") for number in range(len(sizes))]
        chart.add(name, [100 * sum(values) / len(values) for values in means])
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.render_to_file(str(path))
