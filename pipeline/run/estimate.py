"""What can be known of a run before it costs anything. Reads the source, and loads no model.

`preflight` is `figa check`, which calls each remote model once; `estimate` is --dry-run: calls and cost, by rows of the source.
Rows that planning would reject are not counted. What only a run can know is assumed:

    tokens       a quarter of a text's UTF-8 bytes, which is close for English, and a few per message
    drafts       as long as the row's reference, up to policy.max_tokens
    selection    a quantile threshold passes its share, η1 and η2 independently; η3 follows from them; a number passes all
    thoughts     as long as reasoning_tokens, and none where that is not set
    judges       revisions as long as the drafts; a reward's calls for pre-made pairs are not counted
    filter       its judge compares all revisions
    rewrites     the draft and half the reference; edit scripts: half the reference and the words that they quote
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from pipeline import rewards, sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import REASONS, CurationConfig
from pipeline.dataset.facts import MANY_CUT
from pipeline.errors import ConfigError, RowReject
from pipeline.labels.loading import open_tokenizer
from pipeline.models.cost import in_dollars
from pipeline.models.journal import Answer
from pipeline.models.local import catalog
from pipeline.models.prices import price_for
from pipeline.prompts import JudgePrompts, Prompts
from pipeline.rewards.judge import RevisionJudge
from pipeline.run import context, pricing
from pipeline.run.intake import Row, understood
from pipeline.run.plan import FIRST_ROWS, first_rows, open_source
from pipeline.run.probe import probe_all
from pipeline.stages import branches
from pipeline.stages.revise import style_of
from pipeline.stages.sample import build_request

_READ_ROWS = 20_000  # rows beyond these are only counted, and taken to be like them
_CHECKED_ROWS = 100  # by `figa check`
_RENDERED_ROWS = 1000  # as prompts
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
# Tokens of {"reason": "lack_of_detail"}; of the tags around a rewrite; of braces and names of two or three edits.
_DIAGNOSIS, _TAGS, _SCRIPT = 6, 10, 30
_MARK = 1  # tokens of a judgement: 7, or B


class StageCalls(NamedTuple):
    """The calls of one stage. cost_usd: None when the model's price isn't known."""

    stage: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


class Estimate(NamedTuple):
    facts: dict[str, str]
    calls: list[StageCalls]

    @property
    def cost_usd(self) -> float | None:
        """None when a model's price isn't known."""
        return _total(self.calls)

    def as_dict(self) -> dict[str, Any]:
        calls = [stage._asdict() for stage in self.calls]
        return {"dry_run": True, "plan": self.facts, "calls": calls, "cost_usd": self.cost_usd}


def preflight(config: CurationConfig, warn: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Yields what is in order, as (what, detail). Raises the CurationError that a run with this configuration would."""
    config, source, adapters = open_source(config, warn)
    yield "settings", f"valid; output in {config.out}"
    records = itertools.islice(sources.records(source, warn=warn), config.source.limit)
    rows, taken, _ = first_rows(config, adapters, records, _CHECKED_ROWS)
    yield "source", f"{source.location}: {len(rows)} of the first {taken} rows are usable"
    if rows:
        yield "first row", understood(rows[0])
    _note_lengths(config, rows, warn)
    yield "tokenizer", _check_tokenizer(config, rows)
    if config.needs_generation:
        yield "prompts", f"{config.reviser.prompts or 'as shipped'}: they can be rendered"
        for role, model in (("policy", config.policy.model), ("reviser", config.reviser.model)):
            if model.startswith("local/"):
                yield role, f"{model}: {_state(model)}"
    if not config.needs_rewards:
        yield "reward", "not used: the source has pre-made pairs"
    elif not rewards.judge_settings(config.reward):
        yield "reward", config.reward.model
    if config.judge and config.judge.model.startswith("local/"):
        yield "judge", f"{config.judge.model}: {_state(config.judge.model)}"
    yield from probe_all(config, warn)


def _check_tokenizer(config: CurationConfig, rows: list[Row]) -> str:
    """What is known of the labels' tokenizer. Raises ConfigError if it can't be opened, or its template can't be used."""
    name, settings = context.tokenizer_settings(config)
    if _missing(name) and not context.has_tokenizer(name):
        return f"{name}: comes with the model, which the run downloads first"
    tokenizer = open_tokenizer(name, settings)
    if rows:
        try:
            tokenizer.tokenize(rows[0]["messages"], rows[0]["reference"])
        except RowReject as reject:
            if reject.reason in ("template_refuses", "template_alters_answer", "token_across_boundary"):
                why = f"labels.tokenizer {name}: the first row can't be labelled: {reject.reason} {reject.evidence}"
                raise ConfigError(f"{why}; set labels.template, labels.template_options or another tokenizer") from None
    return f"{name}: its template renders the first row"


def _note_lengths(config: CurationConfig, rows: list[Row], warn: Callable[[str], None]) -> None:
    """The policy's answers are likely to be as long as the references."""
    most = config.policy.max_tokens
    share = _mean(float(_tokens(row["reference"]) > most) for row in rows)
    if config.needs_generation and share >= MANY_CUT:
        longer = f"{share:.0%} of the references are longer than policy.max_tokens={most}"
        warn(f"{longer}: answers as long are rejected as truncated; set it to the longest that you want")


def _state(model: str) -> str:
    size_mb = catalog.get(ModelSpec.parse(model).name).size_mb
    return f"to be downloaded, {size_mb} MB" if _missing(model) else "downloaded"


def _missing(name: str) -> bool:
    """Whether an embedded model is not in the cache; False for what is none."""
    return name.startswith("local/") and not Path(name).is_dir() and not context.is_downloaded(name)


def estimate(config: CurationConfig, warn: Callable[[str], None]) -> Estimate:
    """Plan, models, and calls and cost per stage. Raises UsageError for what a run would refuse as well."""
    config, source, adapters = open_source(config, warn)
    records = itertools.islice(sources.records(source, warn=warn), config.source.limit)
    rows, taken, rejects = first_rows(config, adapters, records, _READ_ROWS)
    _check_tokenizer(config, rows)
    read = taken + sum(1 for _ in records)
    usable = round(read * len(rows) / max(1, taken))
    policy, reviser, selection = config.policy, config.reviser, config.selection
    _note_lengths(config, rows, warn)
    share = selected_share(config) if config.needs_generation else 1.0
    if target := config.source.target:
        read = min(read, max(FIRST_ROWS, round(target / max(share * usable / max(1, read), 1e-9))))
        usable = round(read * len(rows) / max(1, taken))
    reasons = ", ".join(reason for reason, _ in Counter(reject.reason for reject in rejects).most_common(5))
    facts = {
        "source": f"{config.source.name}, {source.resolved}: {source.location}, {read:,} rows",
        **({"first row": understood(rows[0])} if rows else {}),
        **({"target": f"{target:,} pairs: about {read:,} rows, if all revisions are kept"} if target else {}),
        "to ask": f"{usable:,} rows{f' × {policy.samples} samples' if policy.samples > 1 else ''}; "
        f"{read - usable:,} would be rejected before any call{f' (as {reasons})' if reasons else ''}",
        "policy": f"{policy.model}{_how(policy.mode)}",
        "reward": config.reward.model + (_how(config.reward.mode) if rewards.judge_settings(config.reward) else ""),
        "reviser": f"{reviser.model}{_how(reviser.mode)}, style {style_of(reviser)}",
        "judge": f"{config.judge.model}{_how(config.judge.mode)}" if config.judge else "none",
        "selection": f"η1 {selection.eta1}, η2 {selection.eta2}, η3 {selection.eta3}: {share:.0%} of the rows assumed",
        "output": str(config.out),
        **pricing.described(config),
    }
    step = -(-len(rows) // _RENDERED_ROWS) or 1
    if config.needs_generation:
        result = Estimate(facts, _calls(config, rows[::step], usable, share))
    else:
        reward = config.reward.model if config.needs_rewards else "none"
        facts |= {"policy": "given", "reward": reward, "reviser": "given", "selection": "none"}
        result = Estimate(facts, _comparison(config, rows[::step], usable))
    if (budget := config.run.budget_usd) is not None:
        stops = ": less than the estimate, so the run would stop there, resumable"
        facts["budget"] = in_dollars(budget) + (stops if (result.cost_usd or 0.0) > budget else "")
    return result


def revision_price(config: CurationConfig, rows: list[Row]) -> float | None:
    """Mean US dollars per row of revising `rows` (with `initial`) and judging that; None when the price isn't known."""
    total = _total(
        [*_revision(config, rows, len(rows)), *_comparison(config, rows, len(rows) * config.reviser.candidates)]
    )
    return None if total is None or not rows else total / len(rows)


def _total(calls: list[StageCalls]) -> float | None:
    costs = [stage.cost_usd for stage in calls]
    return None if None in costs else sum(cost or 0.0 for cost in costs)


def _how(mode: str) -> str:
    return "" if mode == "live" else f" by {mode}"


def _calls(config: CurationConfig, rows: list[Row], usable: int, share: float) -> list[StageCalls]:
    policy, reviser = config.policy, config.reviser
    spec = ModelSpec.parse(policy.model)
    selected = round(usable * (policy.samples if policy.pick == "all" else 1) * share)
    # The reference stands in for the draft that isn't sampled yet.
    rows = [row | {"initial": _beginning(row["reference"], policy.max_tokens)} for row in rows]
    query = _mean(_prompt(build_request(row, policy, spec).messages) for row in rows)
    drafts = _mean(_tokens(row["initial"]) for row in rows)
    return [
        _stage_calls("sample", policy, usable * policy.samples, query, drafts),
        *_judging(config, rows, usable, selected * reviser.candidates),
        *_revision(config, rows, selected),
        *_comparison(config, rows, selected * reviser.candidates),
    ]


def _stage_calls(
    stage: str, settings: pricing.Settings, calls: int, mean_prompt: float, mean_response: float
) -> StageCalls:
    """Means are in tokens per call."""
    prompt, completion = round(calls * mean_prompt), round(calls * (mean_response + (settings.reasoning_tokens or 0)))
    price = price_for(settings, ModelSpec.parse(settings.model))
    cost = None if price is None else price.of(Answer("", "", 0, prompt, completion))
    return StageCalls(stage, settings.model, calls, prompt, completion, cost)


def _judging(config: CurationConfig, rows: list[Row], usable: int, selected: int) -> list[StageCalls]:
    """The calls of each judge: of all answers to a query, the reference, the revision."""
    judges = rewards.judge_settings(config.reward)
    if not judges:
        return []
    prompts = JudgePrompts(config.reward.judge, config.reward.prompts)
    prompt = _mean(_prompt([{"content": prompts.render(row["messages"], "")}]) for row in rows)
    draft, reference = (_mean(_tokens(row[name]) for row in rows) for name in ("initial", "reference"))
    answers = usable * config.policy.samples + selected
    if config.reward.judge == "pairwise":
        calls, shown = 2 * answers, draft + reference
    else:
        calls = answers + usable
        shown = (answers * draft + usable * reference) / max(1, calls)
    return [_stage_calls("judge", judge, calls, prompt + shown, _MARK) for judge in judges]


def _comparison(config: CurationConfig, rows: list[Row], revised: int) -> list[StageCalls]:
    """The calls of the filter's judge: each revision and its draft, in both orders."""
    if not config.judge:
        return []
    prompts = RevisionJudge.prompts(config.judge)
    texts = [(row["messages"], row["reference"], row["initial"], row.get("revised") or row["initial"]) for row in rows]
    prompt = _mean(_prompt([{"content": prompts.render_comparison(*four)}]) for four in texts)
    return [_stage_calls("filter", config.judge, 2 * revised, prompt, _MARK)]


def _revision(config: CurationConfig, rows: list[Row], selected: int) -> list[StageCalls]:
    """The calls of a revision: a diagnosis and a correction, or the branches of one answer."""
    settings, style = config.reviser, style_of(config.reviser)
    prompts = Prompts(settings.prompts)
    texts = [(row["messages"], row["reference"], row["initial"]) for row in rows]
    if style == "branches":
        prompt, draft = (
            _mean(_prompt(prompts.turns("correct", *t)) for t in texts),
            _mean(_tokens(t[2]) for t in texts),
        )
        # The answer, and a branch at its end and at each of some places; the program diagnoses without a call.
        calls = selected * (branches.MOST + 2)
        return [_stage_calls("diagnose", settings, 0, 0, 0), _stage_calls("revise", settings, calls, prompt, draft)]
    opening = _mean(_prompt(prompts.turns("diagnose", *three)) for three in texts)
    names = ["edits"] if style == "edits" else [f"revise_{reason}" for reason in REASONS]
    second = _mean(_prompt(prompts.turns(name, [], "", "", reason=REASONS[0])) for name in names)
    lengths = [
        (_SCRIPT if style == "edits" else _tokens(draft) + _TAGS) + _tokens(reference) // 2
        for _, reference, draft in texts
    ]
    response = _mean(min(length, settings.max_tokens) for length in lengths)
    prompt = opening + _DIAGNOSIS + _TOKENS_PER_MESSAGE + second
    return [
        _stage_calls("diagnose", settings, selected, opening, _DIAGNOSIS),
        _stage_calls("revise", settings, selected * settings.candidates, prompt, response),
    ]


def selected_share(config: CurationConfig) -> float:
    """The share of rows that pass the quantile thresholds; numbers are taken to let all pass."""
    selection = config.selection
    low = float(selection.eta1[1:]) if isinstance(selection.eta1, str) else 1.0
    good, better = (1 - float(eta[1:]) if isinstance(eta, str) else 1.0 for eta in (selection.eta2, selection.eta3))
    # η3 bounds rather than multiplies: rows that pass η1 and η2, which are independent, have a large difference.
    return min(low * good, better)


def _prompt(messages: Iterable[dict[str, str]]) -> int:
    return sum(_tokens(message["content"]) + _TOKENS_PER_MESSAGE for message in messages)


def _tokens(text: str) -> int:
    return round(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


def _beginning(text: str, tokens: int) -> str:
    return text.encode("utf-8", "surrogatepass")[: tokens * _BYTES_PER_TOKEN].decode("utf-8", "ignore")


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else 0.0
