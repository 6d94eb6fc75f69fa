"""The results as tables, a plot and the marked part of docs/replication.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import open_dataset
from tests.replication.experiment import START, Experiment, Result, Run, wins
from tests.replication.methods import METHODS

BEGIN, END = "<!-- results: written by python -m tests.replication -->", "<!-- end of results -->"
DRAWS = 4000
# What is compared query by query: title, key, factor, decimals.
GAINS = (
    ("reward at equal length", "reward", 1, 2),
    ("ROUGE-L at equal length", "rouge_l", 100, 1),
    ("log p of the reference", "reference", 1, 3),
    ("log p, better less worse reply", "margin", 1, 3),
)
_SAMPLED = ("reward", "rouge_l", "length", "cut")
Floats = npt.NDArray[np.float64]
Found = Mapping[str, Sequence[Result]]


class Interval(NamedTuple):
    mean: float
    low: float
    high: float

    def shown(self, factor: float = 1, digits: int = 2) -> str:
        if np.isnan(self.mean):
            return "–"
        mean, low, high = (f"{factor * number:+.{digits}f}".replace("-", "−") for number in self)
        return f"{mean} [{low}, {high}]"


def found(experiment: Experiment) -> dict[str, list[Result]]:
    """Of each method that is there, its seeds' results, without the validation queries."""
    first = experiment.queries.validation
    return {
        name: [{**result, **{key: result[key][first:] for key in _SAMPLED}} for result in results]
        for name in (START, *METHODS)
        if (results := experiment.results(name))
    }


def difference(of: Sequence[Result], other: Sequence[Result], key: str) -> Interval:
    """Mean of `of` minus `other` over seeds and queries, each query with itself at the same seed, with a 95 % bootstrap
    interval that draws seeds and queries anew.

    Measures of sampled answers: where both answers have ended, less what the difference in log length explains by linear
    regression over all of them. NaN where nothing is left.
    """
    by_seed = {result["seed"]: result for result in other}
    pairs = [(result, by_seed[result["seed"]]) for result in of if result["seed"] in by_seed]
    values = np.array([np.subtract(mine[key], theirs[key]) for mine, theirs in pairs], float)
    if key in _SAMPLED:
        lengths = np.array([np.log1p(mine["length"]) - np.log1p(theirs["length"]) for mine, theirs in pairs])
        cut = np.array([np.logical_or(mine["cut"], theirs["cut"]) for mine, theirs in pairs])
        values = np.where(cut, np.nan, values - _slope(lengths[~cut], values[~cut]) * lengths)
    return interval(values)


def _slope(x: Floats, y: Floats) -> float:
    return float(np.cov(x, y)[0, 1] / np.var(x, ddof=1)) if len(x) > 2 and np.ptp(x) > 0 else 0.0


def interval(values: Floats) -> Interval:
    """values: (seeds, queries); NaN where there is none."""
    there = ~np.isnan(values)
    if not there.any():
        return Interval(*[float("nan")] * 3)
    rng = np.random.default_rng(0)
    seeds, queries = values.shape
    rows = rng.integers(seeds, size=(DRAWS, seeds, 1))
    columns = rng.integers(queries, size=(DRAWS, 1, queries))
    sums = np.where(there, values, 0.0)[rows, columns].sum((1, 2))
    counts = there[rows, columns].sum((1, 2))
    means = sums[counts > 0] / counts[counts > 0]
    return Interval(float(values[there].mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975))))


def gains(results: Found) -> str:
    """Each method's differences to the start."""
    lines = ["| gain over the start [95 %] | rate | " + " | ".join(title for title, *_ in GAINS) + " |"]
    lines.append("|---|" + "---:|" * (len(GAINS) + 1))
    means = [f"({factor * _mean(results[START], key):.{d}f})" for _, key, factor, d in GAINS]
    lines.append(f"| start | | {' | '.join(means)} |")
    for name in list(results)[1:]:
        cells = [difference(results[name], results[START], key).shown(f, d) for _, key, f, d in GAINS]
        lines.append(f"| {name} | {results[name][0]['rate']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rivals(results: Found) -> str:
    """FIGA minus each other method."""
    lines = ["| FIGA minus [95 %] | " + " | ".join(title for title, *_ in GAINS) + " |", "|---|" + "---:|" * len(GAINS)]
    for name in list(results)[2:]:
        cells = [difference(results["figa"], results[name], key).shown(f, d) for _, key, f, d in GAINS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def answers(results: Found) -> str:
    """What the answers look like, and how far the model has moved."""
    head = ["", "seeds", "KL, nats a token", "tokens", "cut", "distinct-2", "log p brought in", "log p taken out"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, of in results.items():
        cells = [name, str(len(of)), f"{_mean(of, 'kl'):.3f}"]
        cells += [f"{_mean(of, 'length'):.0f}", f"{_mean(of, 'cut'):.0%}"]
        cells += [f"{_mean(of, 'distinct_2'):.2f}"]
        cells += [f"{_mean([result['edit_logprobs'] for result in of], kind):.2f}" for kind in ("good", "bad")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rates(experiment: Experiment) -> str:
    """Of every rate with seed 0 what it was chosen by, and what came of it."""
    start, first = experiment.results(START)[:1], experiment.queries.validation
    head = ["seed 0", "rate", "wins in validation", "log p of the reference", "KL, nats a token", "cut"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    tried = ((name, rate, experiment.result(Run(name, rate, 0))) for name in METHODS for rate in experiment.plan.rates)
    for name, rate, result in tried:
        if result and start:
            gain = difference([result], start, "reference").shown(1, 3)
            cells = [name, f"{rate:g}", f"{wins(result, start[0], first):.0%}", gain, f"{result['kl']:.3f}"]
            lines.append("| " + " | ".join([*cells, f"{_mean([result], 'cut'):.0%}"]) + " |")
    return "\n".join(lines)


def _mean(of: Sequence[Result], key: str) -> float:
    return float(np.mean([np.mean(result[key]) for result in of]))


def plot(results: Found, path: Path) -> None:
    """Gains in log p of the reference with their intervals, as SVG."""
    import pygal

    names = list(results)[:0:-1]
    values = [difference(results[name], results[START], "reference") for name in names]
    bars = pygal.HorizontalBar(
        title="Gain in log p of unseen references, nats a token, 95 % intervals",
        x_labels=names,
        height=360,
        width=760,
        margin=8,
        show_legend=False,
        js=(),
        disable_xml_declaration=True,
        range=(min(0.0, *(v.low for v in values)), max(0.0, *(v.high for v in values))),
    )
    bars.add("gain", [{"value": v.mean, "ci": {"low": v.low, "high": v.high}} for v in values])
    bars.render_to_file(str(path))


def facts(experiment: Experiment) -> dict[str, str]:
    """What a reader must know to read the tables."""
    plan, queries = experiment.plan, experiment.queries
    manifest = open_dataset(experiment.data).manifest["rows"]
    every = [result for run in dict.fromkeys(experiment.runs()) if (result := experiment.result(run))]
    spent = sum(sum(result["cpu_seconds"].values()) for result in every)
    return {
        "training set": f"{manifest['read']} questions read, {manifest['published']} pairs published",
        "held out": f"{len(queries.rows)} queries, {queries.validation} of them to choose rates; one answer of at most "
        f"{plan.most_tokens} tokens each and seed, temperature {plan.temperature}",
        "training": f"{plan.budget.steps} steps of {plan.budget.sequences} sequences, AdamW, top {plan.layers} layers; rates "
        f"{', '.join(f'{rate:g}' for rate in plan.rates)}",
        "CPU": f"{spent / 60:.0f} minutes for {len(every)} runs",
    }


def write(experiment: Experiment, known: Mapping[str, str], docs: Path) -> str:
    """Replace the marked part of docs/replication.md, and the plot; returns that part."""
    results = found(experiment)
    told = "\n".join(f"- {name}: {value}" for name, value in {**facts(experiment), **known}.items())
    tables = "\n\n".join([*(table(results) for table in (gains, rivals, answers)), rates(experiment)])
    part = f"{BEGIN}\n{told}\n\n{tables}\n\n![gains](replication-gains.svg)\n{END}"
    docs.mkdir(parents=True, exist_ok=True)
    plot(results, docs / "replication-gains.svg")
    page = docs / "replication.md"
    text = page.read_text("utf-8") if page.exists() else f"# Replication\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(before + part + rest.partition(END)[2], "utf-8")
    return part
