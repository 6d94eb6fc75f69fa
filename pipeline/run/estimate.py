"""--dry-run: calls and cost of a run, estimated from the source's rows. Reads the source; calls and loads no model.

Rows that planning would reject are not counted. What only a run can know is assumed:

    tokens       a quarter of a text's UTF-8 bytes, which is close for English, and a few per message
    drafts       as long as the row's reference, up to policy.max_tokens
    selection    a quantile threshold passes its share, η1 and η2 independently; η3 follows from them; a number passes all
    judges       revisions as long as the drafts; pre-made pairs are not counted
    rewrites     the draft and half the reference; edit scripts: half the reference and the words that they quote
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from pipeline import rewards, sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.reward import RewardSettings
from pipeline.config.settings import REASONS, CurationConfig, PolicySettings, ReviserSettings
from pipeline.models.cost import in_dollars, price_of, prices_as_of
from pipeline.models.journal import Answer
from pipeline.prompts import JudgePrompts, Prompts
from pipeline.run.intake import Rejected
from pipeline.run.plan import first_rows, open_source
from pipeline.stages import sentences
from pipeline.stages.revise import style_of
from pipeline.stages.sample import build_request

# Rows beyond these are only counted, and taken to be like them.
_READ_ROWS = 20_000
# Rows whose prompts are rendered.
_RENDERED_ROWS = 1000
_BYTES_PER_TOKEN = 4.0
_TOKENS_PER_MESSAGE = 4
# Tokens of {"reason": "lack_of_detail"}; of the tags around a rewrite; of braces and names of two or three edits.
_DIAGNOSIS, _TAGS, _SCRIPT = 6, 10, 30
# Tokens of a judgement: 7, or B.
_MARK = 1

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StageCalls:
    """The calls of one stage. cost_usd: None when the model's price isn't known."""

    stage: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    facts: dict[str, str]
    calls: list[StageCalls]

    @property
    def cost_usd(self) -> float | None:
        """None when a model's price isn't known."""
        costs = [calls.cost_usd for calls in self.calls]
        return None if None in costs else sum(cost or 0.0 for cost in costs)

    def as_dict(self) -> dict[str, Any]:
        return {
            "dry_run": True,
            "plan": self.facts,
            "calls": [asdict(c) for c in self.calls],
            "cost_usd": self.cost_usd,
        }


def estimate(config: CurationConfig, warn: Callable[[str], None]) -> Estimate:
    """Plan, models, and calls and cost per stage. Raises UsageError for what a run would refuse as well."""
    config, source, adapters = open_source(config, warn)
    records = itertools.islice(sources.records(source, warn=warn), config.source.limit)
    rows, taken, rejects = first_rows(config, adapters, records, _READ_ROWS)
    read = taken + sum(1 for _ in records)
    usable = round(read * len(rows) / max(1, taken))
    share = _selected_share(config)
    selection = config.selection
    facts = {
        "source": f"{config.source.name}, {source.resolved}: {source.location}, {read:,} rows",
        "to ask": f"{usable:,} rows{_times(config.policy.samples)}; {read - usable:,} would be rejected before any call"
        + _reasons(rejects),
        "policy": f"{config.policy.model}{_how(config.policy.mode)}",
        "reward": config.reward.model + (_how(config.reward.mode) if rewards.judge_settings(config.reward) else ""),
        "reviser": f"{config.reviser.model}{_how(config.reviser.mode)}, style {style_of(config.reviser)}",
        "selection": f"η1 {selection.eta1}, η2 {selection.eta2}, η3 {selection.eta3}: {share:.0%} of the rows assumed",
        "output": str(config.out),
        "prices": f"as of {prices_as_of()}",
    }
    if not config.needs_generation:
        reward = config.reward.model if config.needs_rewards else "none"
        return Estimate(facts | {"policy": "given", "reward": reward, "reviser": "given", "selection": "none"}, [])
    step = -(-len(rows) // _RENDERED_ROWS) or 1
    going_on = usable * (config.policy.samples if config.policy.pick == "all" else 1)
    result = Estimate(facts, _calls(config, rows[::step], usable, round(going_on * share)))
    budget = config.run.budget_usd
    if budget is not None:
        short = (result.cost_usd or 0.0) > budget
        facts["budget"] = in_dollars(budget) + (
            ": less than the estimate, so the run would stop there, resumable" if short else ""
        )
    return result


def revision_price(config: CurationConfig, rows: list[Row]) -> float | None:
    """Mean US dollars per row of diagnosing and revising `rows` (with `initial`); None when the price isn't known."""
    price = price_of(ModelSpec.parse(config.reviser.model), config.reviser.mode)
    if price is None or not rows:
        return None
    drafts, references = ([_tokens(row[name]) for row in rows] for name in ("initial", "reference"))
    dollars = 0.0
    for calls, prompt, answer in _revision(config, rows, drafts, references, len(rows)).values():
        if calls:
            dollars += calls * price.of(Answer("", "", 0, round(fmean(prompt)), round(fmean(answer))))
    return dollars / len(rows)


def _reasons(rejects: Rejected) -> str:
    counted = Counter(reject.reason for _, reject in rejects).most_common(5)
    return f" (as {', '.join(reason for reason, _ in counted)})" if counted else ""


def _times(samples: int) -> str:
    return f" × {samples} samples" if samples > 1 else ""


def _how(mode: str) -> str:
    return "" if mode == "live" else f" by {mode}"


def _calls(config: CurationConfig, rows: list[Row], usable: int, selected: int) -> list[StageCalls]:
    policy, reviser = config.policy, config.reviser
    spec = ModelSpec.parse(policy.model)
    references = [_tokens(row["reference"]) for row in rows]
    drafts = [min(reference, policy.max_tokens) for reference in references]
    queries = [_prompt(m["content"] for m in build_request(row, policy, spec).messages) for row in rows]
    judging = rewards.judge_settings(config.reward)
    judgements = (
        _judging(config, rows, drafts, references, usable, selected * reviser.candidates) if judging else (0, [], [])
    )
    stages: list[tuple[str, PolicySettings | ReviserSettings | RewardSettings, int, list[int], list[int]]] = [
        ("sample", policy, usable * policy.samples, queries, drafts),
        *(("judge", judge, *judgements) for judge in judging),
        *((stage, reviser, *turns) for stage, turns in _revision(config, rows, drafts, references, selected).items()),
    ]
    rows_of_calls = []
    for stage, settings, calls, prompt, answer in stages:
        prompt_tokens, answer_tokens = (round(calls * fmean(part)) if part else 0 for part in (prompt, answer))
        price = price_of(ModelSpec.parse(settings.model), settings.mode)
        cost = None if price is None else price.of(Answer("", "", 0, prompt_tokens, answer_tokens))
        rows_of_calls.append(StageCalls(stage, settings.model, calls, prompt_tokens, answer_tokens, cost))
    return rows_of_calls


def _judging(
    config: CurationConfig, rows: list[Row], drafts: list[int], references: list[int], usable: int, selected: int
) -> tuple[int, list[int], list[int]]:
    """Calls of one judge with the tokens of prompt and response: of all answers to a query, the reference, the revision."""
    settings = config.reward
    prompts = JudgePrompts(settings.judge, settings.prompts)
    pairs = zip(drafts, references, strict=True)
    empty = [_prompt([prompts.render(row["messages"], "")]) for row in rows]
    if settings.judge == "pairwise":
        calls = 2 * (usable * config.policy.samples + selected)
        shown = [draft + reference for draft, reference in pairs]
    else:
        answers = usable * config.policy.samples + selected
        calls = answers + usable
        shown = [round((answers * draft + usable * reference) / max(1, calls)) for draft, reference in pairs]
    return calls, [one + other for one, other in zip(empty, shown, strict=True)], [_MARK] * len(rows)


def _revision(
    config: CurationConfig, rows: list[Row], drafts: list[int], references: list[int], selected: int
) -> dict[str, tuple[int, list[int], list[int]]]:
    """For the two calls of a revision: their number, and the tokens of prompt and response per rendered row."""
    settings, style = config.reviser, style_of(config.reviser)
    prompts = Prompts(settings.prompts)
    # The reference stands in for a draft that isn't sampled yet.
    texts = [
        (row["messages"], row["reference"], row.get("initial", row["reference"][: 4 * config.policy.max_tokens]))
        for row in rows
    ]
    if style == "sentences":
        pieces = [min(sentences.MOST_REPAIRED, len(sentences.split(row["reference"]))) for row in rows]
        shown = [_prompt([prompts.render("sentence", *three, reason=REASONS[0], sentence="")]) for three in texts]
        parts = [draft // count for draft, count in zip(drafts, pieces, strict=True)]
        each = round(selected * fmean(pieces)) if pieces else 0
        # The program diagnoses without a call.
        return {"diagnose": (0, [], []), "revise": (each, [s + p for s, p in zip(shown, parts, strict=True)], parts)}
    opening = [_prompt([prompts.render("diagnose", *three)]) for three in texts]
    diagnosis = (selected, opening, [_DIAGNOSIS] * len(rows))
    names = ["edits"] if style == "edits" else [f"revise_{reason}" for reason in REASONS]
    turn = round(fmean(_prompt([prompts.render(name, [], "", "", reason=REASONS[0])]) for name in names))
    prompts_of_turn = [first + _DIAGNOSIS + _TOKENS_PER_MESSAGE + turn for first in opening]
    pairs = zip(drafts, references, strict=True)
    lengths = [(_SCRIPT if style == "edits" else draft + _TAGS) + reference // 2 for draft, reference in pairs]
    calls = selected * settings.candidates
    return {"diagnose": diagnosis, "revise": (calls, prompts_of_turn, [min(n, settings.max_tokens) for n in lengths])}


def _selected_share(config: CurationConfig) -> float:
    """The share of rows that pass the quantile thresholds; numbers are taken to let all pass.

    η1 looks at the draft's score and η2 at the reference's: independent, unless the reward judges the query. Rows that pass
    both have a large difference, so η3 bounds the share rather than multiplying it.
    """
    selection = config.selection
    low = float(selection.eta1[1:]) if isinstance(selection.eta1, str) else 1.0
    good, better = (1 - float(eta[1:]) if isinstance(eta, str) else 1.0 for eta in (selection.eta2, selection.eta3))
    return min(low * good, better)


def _prompt(messages: Iterable[str]) -> int:
    return sum(_tokens(content) + _TOKENS_PER_MESSAGE for content in messages)


def _tokens(text: str) -> int:
    return round(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)
