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
from typing import Any, NamedTuple

from pipeline import rewards, sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.reward import RewardSettings
from pipeline.config.settings import REASONS, CurationConfig, PolicySettings, ReviserSettings
from pipeline.models.cost import in_dollars, price_of, prices_as_of
from pipeline.models.journal import Answer
from pipeline.prompts import JudgePrompts, Prompts
from pipeline.run.plan import first_rows, open_source
from pipeline.stages import sentences
from pipeline.stages.revise import style_of
from pipeline.stages.sample import build_request

# Rows beyond these are only counted, and taken to be like them.
_READ_ROWS = 20_000
# Rows whose prompts are rendered.
_RENDERED_ROWS = 1000
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
# Tokens of {"reason": "lack_of_detail"}; of the tags around a rewrite; of braces and names of two or three edits.
_DIAGNOSIS, _TAGS, _SCRIPT = 6, 10, 30
# Tokens of a judgement: 7, or B.
_MARK = 1

Row = dict[str, Any]


class Turn(NamedTuple):
    """A number of calls, and the mean tokens of prompt and response of one."""

    calls: int
    prompt: float
    response: float


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
        calls = [asdict(stage) for stage in self.calls]
        return {"dry_run": True, "plan": self.facts, "calls": calls, "cost_usd": self.cost_usd}


def estimate(config: CurationConfig, warn: Callable[[str], None]) -> Estimate:
    """Plan, models, and calls and cost per stage. Raises UsageError for what a run would refuse as well."""
    config, source, adapters = open_source(config, warn)
    records = itertools.islice(sources.records(source, warn=warn), config.source.limit)
    rows, taken, rejects = first_rows(config, adapters, records, _READ_ROWS)
    read = taken + sum(1 for _ in records)
    usable = round(read * len(rows) / max(1, taken))
    policy, reviser, selection = config.policy, config.reviser, config.selection
    share = _selected_share(config)
    reasons = ", ".join(reason for reason, _ in Counter(reject.reason for reject in rejects).most_common(5))
    facts = {
        "source": f"{config.source.name}, {source.resolved}: {source.location}, {read:,} rows",
        "to ask": f"{usable:,} rows{f' × {policy.samples} samples' if policy.samples > 1 else ''}; "
        f"{read - usable:,} would be rejected before any call{f' (as {reasons})' if reasons else ''}",
        "policy": f"{policy.model}{_how(policy.mode)}",
        "reward": config.reward.model + (_how(config.reward.mode) if rewards.judge_settings(config.reward) else ""),
        "reviser": f"{reviser.model}{_how(reviser.mode)}, style {style_of(reviser)}",
        "selection": f"η1 {selection.eta1}, η2 {selection.eta2}, η3 {selection.eta3}: {share:.0%} of the rows assumed",
        "output": str(config.out),
        "prices": f"as of {prices_as_of()}",
    }
    if not config.needs_generation:
        reward = config.reward.model if config.needs_rewards else "none"
        return Estimate(facts | {"policy": "given", "reward": reward, "reviser": "given", "selection": "none"}, [])
    step = -(-len(rows) // _RENDERED_ROWS) or 1
    judged = usable * (policy.samples if policy.pick == "all" else 1)
    result = Estimate(facts, _calls(config, rows[::step], usable, round(judged * share)))
    budget = config.run.budget_usd
    if budget is not None:
        short = (result.cost_usd or 0.0) > budget
        facts["budget"] = in_dollars(budget)
        facts["budget"] += ": less than the estimate, so the run would stop there, resumable" if short else ""
    return result


def revision_price(config: CurationConfig, rows: list[Row]) -> float | None:
    """Mean US dollars per row of diagnosing and revising `rows` (with `initial`); None when the price isn't known."""
    turns = _revision(config, rows, len(rows)).items() if rows else ()
    costs = [_stage_calls(stage, config.reviser, turn).cost_usd for stage, turn in turns]
    return None if not costs or None in costs else sum(cost or 0.0 for cost in costs) / len(rows)


def _how(mode: str) -> str:
    return "" if mode == "live" else f" by {mode}"


def _calls(config: CurationConfig, rows: list[Row], usable: int, selected: int) -> list[StageCalls]:
    policy, reviser = config.policy, config.reviser
    spec = ModelSpec.parse(policy.model)
    # The reference stands in for the draft that isn't sampled yet.
    rows = [row | {"initial": _beginning(row["reference"], policy.max_tokens)} for row in rows]
    query = _mean(_prompt(m["content"] for m in build_request(row, policy, spec).messages) for row in rows)
    sampling = Turn(usable * policy.samples, query, _mean(_tokens(row["initial"]) for row in rows))
    judges = rewards.judge_settings(config.reward)
    judging = _judging(config, rows, usable, selected * reviser.candidates) if judges else None
    return [
        _stage_calls("sample", policy, sampling),
        *(_stage_calls("judge", judge, judging) for judge in judges if judging),
        *(_stage_calls(stage, reviser, turn) for stage, turn in _revision(config, rows, selected).items()),
    ]


def _stage_calls(stage: str, settings: PolicySettings | ReviserSettings | RewardSettings, turn: Turn) -> StageCalls:
    prompt, completion = round(turn.calls * turn.prompt), round(turn.calls * turn.response)
    price = price_of(ModelSpec.parse(settings.model), settings.mode)
    cost = None if price is None else price.of(Answer("", "", 0, prompt, completion))
    return StageCalls(stage, settings.model, turn.calls, prompt, completion, cost)


def _judging(config: CurationConfig, rows: list[Row], usable: int, selected: int) -> Turn:
    """The calls of one judge: of all answers to a query, the reference, the revision."""
    settings = config.reward
    prompts = JudgePrompts(settings.judge, settings.prompts)
    empty = _mean(_prompt([prompts.render(row["messages"], "")]) for row in rows)
    draft, reference = (_mean(_tokens(row[name]) for row in rows) for name in ("initial", "reference"))
    answers = usable * config.policy.samples + selected
    if settings.judge == "pairwise":
        return Turn(2 * answers, empty + draft + reference, _MARK)
    shown = (answers * draft + usable * reference) / max(1, answers + usable)
    return Turn(answers + usable, empty + shown, _MARK)


def _revision(config: CurationConfig, rows: list[Row], selected: int) -> dict[str, Turn]:
    """The two calls of a revision."""
    settings, style = config.reviser, style_of(config.reviser)
    prompts = Prompts(settings.prompts)
    texts = [(row["messages"], row["reference"], row["initial"]) for row in rows]
    if style == "sentences":
        pieces = [min(sentences.MOST_REPAIRED, len(sentences.split(reference))) for _, reference, _ in texts]
        opening = _mean(_prompt([prompts.render("sentence", *t, reason=REASONS[0], sentence="")]) for t in texts)
        part = _mean(_tokens(draft) // count for (_, _, draft), count in zip(texts, pieces, strict=True))
        # The program diagnoses without a call.
        return {"diagnose": Turn(0, 0, 0), "revise": Turn(round(selected * _mean(pieces)), opening + part, part)}
    opening = _mean(_prompt([prompts.render("diagnose", *three)]) for three in texts)
    names = ["edits"] if style == "edits" else [f"revise_{reason}" for reason in REASONS]
    second = _mean(_prompt([prompts.render(name, [], "", "", reason=REASONS[0])]) for name in names)
    lengths = [
        (_SCRIPT if style == "edits" else _tokens(draft) + _TAGS) + _tokens(reference) // 2
        for _, reference, draft in texts
    ]
    response = _mean(min(length, settings.max_tokens) for length in lengths)
    return {
        "diagnose": Turn(selected, opening, _DIAGNOSIS),
        "revise": Turn(selected * settings.candidates, opening + _DIAGNOSIS + _TOKENS_PER_MESSAGE + second, response),
    }


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


def _beginning(text: str, tokens: int) -> str:
    return text.encode("utf-8", "surrogatepass")[: tokens * _BYTES_PER_TOKEN].decode("utf-8", "ignore")


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else 0.0
