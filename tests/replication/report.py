"""The results as a table, plots and the marked part of docs/replication.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import open_dataset
from pipeline.rewards.embedded import EmbeddedReward
from tests.replication.experiment import START, Plan
from tests.replication.judge import Judge
from tests.replication.methods import METHODS
from tests.replication.rows import Shared

BEGIN, END = "<!-- results: written by python -m tests.replication -->", "<!-- end of results -->"
DRAWS = 4000
# What is compared with the start, query by query: title, key, factor, decimals.
GAINS = (("reward", "reward", 1, 2), ("second reward", "judge", 1, 2), ("ROUGE-L", "rouge_l", 100, 1))
Floats = npt.NDArray[np.float64]
Result = dict[str, Any]


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def gain(of: Sequence[Result], start: Sequence[Result], key: str) -> Interval:
    """Mean difference to the start over seeds and queries, with a 95 % bootstrap interval that draws both anew.

    Seed s is compared with the start's answers of seed s, query by query.
    """
    by_seed = {result["seed"]: np.array(result[key], float) for result in start}
    difference = np.stack([np.array(result[key], float) - by_seed[result["seed"]] for result in of])
    return interval(difference)


def interval(values: Floats) -> Interval:
    """values: (seeds, queries)."""
    rng = np.random.default_rng(0)
    seeds, queries = values.shape
    rows = rng.integers(seeds, size=(DRAWS, seeds, 1))
    columns = rng.integers(queries, size=(DRAWS, 1, queries))
    means = values[rows, columns].mean((1, 2))
    return Interval(float(values.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975))))


def table(results: Sequence[Result]) -> str:
    """One row a method; its gains over the start."""
    start = _of(results, START)
    head = ["method", "seeds", *(f"{title}, gain [95 %]" for title, *_ in GAINS)]
    head += ["KL, nats a token", "tokens", "cut", "distinct-2", "log p brought in", "log p taken out"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    found = {name: of for name in (START, *METHODS) if (of := _of(results, name))}
    return "\n".join([*lines, *("| " + " | ".join(_cells(name, of, start)) + " |" for name, of in found.items())])


def duels(results: Sequence[Result]) -> str:
    """FIGA minus each other method, query by query at the same seed."""
    figa = _of(results, "figa")
    lines = ["| FIGA minus | " + " | ".join(title for title, *_ in GAINS) + " |", "|---|" + "---:|" * len(GAINS)]
    for name in METHODS:
        other = _of(results, name)
        seeds = {result["seed"] for result in other}
        mine = [result for result in figa if result["seed"] in seeds]
        if name != "figa" and mine:
            cells = [_shown(gain(mine, other, key), factor, digits) for _, key, factor, digits in GAINS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(name: str, of: Sequence[Result], start: Sequence[Result]) -> list[str]:
    cells = [name, str(len(of))]
    for _, key, factor, digits in GAINS:
        if name == START:
            cells.append(f"({factor * _mean(of, lambda r, k=key: np.mean(r[k])):.{digits}f})")
        else:
            cells.append(_shown(gain(of, start, key), factor, digits))
    cells += [f"{_mean(of, lambda r: r['kl']):.3f} ± {_spread(of, lambda r: r['kl']):.3f}"]
    cells += [f"{_mean(of, lambda r: np.mean(r['length'])):.0f}", f"{_mean(of, lambda r: np.mean(r['cut'])):.0%}"]
    cells += [f"{_mean(of, lambda r: r['distinct_2']):.2f}"]
    return cells + [f"{_mean(of, lambda r, k=kind: r['edit_logprobs'][k]):.2f}" for kind in ("good", "bad")]


def _shown(value: Interval, factor: float, digits: int) -> str:
    mean, low, high = (f"{factor * number:+.{digits}f}".replace("-", "−") for number in value)
    return f"{mean} [{low}, {high}]"


def _of(results: Sequence[Result], name: str) -> list[Result]:
    return sorted((result for result in results if result["method"] == name), key=lambda result: result["seed"])


def _mean(of: Sequence[Result], what: Callable[[Result], Any]) -> float:
    return float(np.mean([what(result) for result in of]))


def _spread(of: Sequence[Result], what: Callable[[Result], Any]) -> float:
    return float(np.std([what(result) for result in of], ddof=1)) if len(of) > 1 else 0.0


def plots(results: Sequence[Result], docs: Path) -> None:
    """Gains with their intervals, and gain against drift, as SVG."""
    import pygal

    start = _of(results, START)
    shown = [name for name in METHODS if _of(results, name)]
    options = {"js": (), "disable_xml_declaration": True, "legend_at_bottom": True, "margin": 8, "width": 760}
    found = {title: [gain(_of(results, name), start, key) for name in shown[::-1]] for title, key, *_ in GAINS[:2]}
    ends = [end for values in found.values() for value in values for end in value]
    bars = pygal.HorizontalBar(
        title="Gain over the start, 95 % intervals",
        x_labels=shown[::-1],
        height=520,
        range=(min(0.0, *ends), max(ends)),
        **options,
    )
    for title, values in found.items():
        bars.add(title, [{"value": v.mean, "ci": {"low": v.low, "high": v.high}} for v in values])
    bars.render_to_file(str(docs / "replication-gains.svg"))
    points = pygal.XY(
        title="Second reward's gain against drift, a point a seed",
        x_title="KL(start ‖ trained), nats a token",
        y_title="gain",
        stroke=False,
        height=460,
        **options,
    )
    for name in shown:
        of = _of(results, name)
        points.add(name, [(result["kl"], gain([result], start, "judge").mean) for result in of])
    points.render_to_file(str(docs / "replication-drift.svg"))


def facts(
    results: Sequence[Result], sets: Mapping[str, Path], shared: Shared, plan: Plan, right: float
) -> dict[str, str]:
    """What a reader must know to read the table."""
    start, budget = _of(results, START), plan.budget
    manifest = open_dataset(sets["set"]).manifest["rows"]
    tokens = [_mean(of, lambda r: r["training"]["tokens"]) for name in METHODS if (of := _of(results, name))]
    spent = sum(sum(result["cpu_seconds"].values()) for result in results)
    first, second = (
        np.mean(np.array(known) > np.mean([r[key] for r in start], 0)) for key, known in _references(shared)
    )
    return {
        "training set": f"{manifest['read']} rows read, {manifest['published']} pairs published, "
        f"{len(open_dataset(sets['ungated']))} without the gain gate",
        "held-out": f"{len(shared.queries)} queries, one answer of at most {plan.most_tokens} tokens each and seed, "
        f"temperature {plan.temperature}",
        "second reward": f"ranks {right:.1%} of {len(shared.chosen)} other pairs as people did (5-fold); it ranks the "
        f"reference above the start's answers in {second:.0%} of the held-out queries, the first reward in {first:.0%}",
        "budget": f"{budget.steps} steps of {budget.sequences} sequences, AdamW, lr {budget.lr:g}, top {plan.layers} layers, "
        f"{min(tokens):,.0f} to {max(tokens):,.0f} tokens fed a run",
        "CPU": f"{spent / 60:.0f} minutes for {len(results)} runs",
    }


def _references(shared: Shared) -> list[tuple[str, Sequence[float]]]:
    """Both rewards of the held-out references."""
    items = [(query["messages"], query["reference"]) for query in shared.queries]
    second = Judge(shared.chosen, shared.rejected).score([text for _, text in items])
    return [("reward", EmbeddedReward().score(items).tolist()), ("judge", second.tolist())]


def write(results: Sequence[Result], known: Mapping[str, str], docs: Path) -> str:
    """Replace the marked part of docs/replication.md, and the plots; returns that part."""
    told = "\n".join(f"- {name}: {value}" for name, value in known.items())
    pictures = "![gains](replication-gains.svg)\n\n![drift](replication-drift.svg)"
    part = f"{BEGIN}\n{told}\n\n{table(results)}\n\n{duels(results)}\n\n{pictures}\n{END}"
    docs.mkdir(parents=True, exist_ok=True)
    plots(results, docs)
    page = docs / "replication.md"
    text = page.read_text("utf-8") if page.exists() else f"# Replication\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(before + part + rest.partition(END)[2], "utf-8")
    return part
