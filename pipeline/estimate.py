"""--dry-run: what a run would ask and cost, from the source's own rows. Reads the source; calls and loads no model."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import context, sources
from pipeline.config import CurationConfig
from pipeline.curate import resolve_source
from pipeline.errors import InputError, RowReject
from pipeline.models.money import price_of, prices_as_of
from pipeline.models.spec import ModelSpec
from pipeline.plan import open_adapter
from pipeline.prompts import Prompts
from pipeline.sources import SourceRow
from pipeline.stages.revise import DIAGNOSIS_TOKENS

_SAMPLE_ROWS = 2000
# English text in today's tokenizers; a dry run loads none.
_CHARACTERS_A_TOKEN = 4.0
_TOKENS_A_MESSAGE = 6


@dataclass(frozen=True, slots=True)
class Calls:
    """What one stage asks. cost_usd is None when the model's price isn't known."""

    stage: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    facts: dict[str, str]
    calls: list[Calls]

    def as_dict(self) -> dict[str, Any]:
        total = None if any(c.cost_usd is None for c in self.calls) else sum(c.cost_usd or 0 for c in self.calls)
        return {"dry_run": True, "plan": self.facts, "calls": [asdict(c) for c in self.calls], "cost_usd": total}


def estimate(config: CurationConfig, warn: Callable[[str], None]) -> Estimate:
    """The plan, models, and calls and cost a stage. Raises UsageError for what a run would refuse as well."""
    context.check(config)
    source = resolve_source(config, warn)
    adapter = open_adapter(config.source, source, warn)
    records = sources.records(source, warn=warn)
    rows: list[SourceRow] = []
    read = 0
    for record in itertools.islice(records, min(config.source.limit or _SAMPLE_ROWS, _SAMPLE_ROWS)):
        read += 1
        try:
            if isinstance(record.value, RowReject):
                continue
            rows.append(adapter.parse(record.value))
        except RowReject:
            continue
    if not rows:
        raise InputError(f"{source.location}: none of the first {read} rows is usable; expected {adapter.expected}")
    rest = (
        sum(1 for _ in itertools.islice(records, (config.source.limit or 10**9) - read)) if read >= _SAMPLE_ROWS else 0
    )
    usable = round(len(rows) / read * (read + rest))
    facts = {
        "source": f"{config.source.name}, {source.resolved}: {source.location}, {read + rest:,} rows",
        "policy": config.policy.model,
        "reward": config.reward.model,
        "reviser": config.reviser.model,
        "selection": f"η1 {config.selection.eta1}, η2 {config.selection.eta2}, η3 {config.selection.eta3}",
        "output": str(config.out),
        "prices": f"as of {prices_as_of()}",
    }
    return Estimate(facts, _calls(config, rows, usable))


def _calls(config: CurationConfig, rows: list[SourceRow], usable: int) -> list[Calls]:
    """Upper estimates: the policy is taken to answer as long as the reference, or half its limit if that is longer."""
    queries = [sum(_tokens(m["content"]) for m in row.messages) for row in rows]
    references = [_tokens(row.reference) for row in rows]
    drafts = [min(config.policy.max_tokens, max(r, config.policy.max_tokens // 2)) for r in references]
    instructions = _instruction_tokens(config)
    shown = [q + r + d + instructions for q, r, d in zip(queries, references, drafts, strict=True)]
    selected = round(usable * _selected_share(config))
    revisions = [min(d + r // 2, config.reviser.max_tokens) for d, r in zip(drafts, references, strict=True)]
    return [
        _stage("sample", config.policy.model, usable, queries, drafts),
        _stage("diagnose", config.reviser.model, selected, shown, [DIAGNOSIS_TOKENS // 2] * len(rows)),
        _stage("revise", config.reviser.model, selected, [s + instructions // 2 for s in shown], revisions),
    ]


def _stage(stage: str, model: str, calls: int, prompt: list[int], answer: list[int]) -> Calls:
    prompt_tokens, answer_tokens = (round(sum(part) / len(part) * calls) for part in (prompt, answer))
    price = price_of(ModelSpec.parse(model))
    cost = None if price is None else price.most(prompt_tokens, answer_tokens)
    return Calls(stage, model, calls, prompt_tokens, answer_tokens, cost)


def _selected_share(config: CurationConfig) -> float:
    """At most the share that each quantile threshold lets through; a number may let all through."""
    shares = [1.0]
    if isinstance(config.selection.eta1, str):
        shares.append(float(config.selection.eta1[1:]))
    shares += [1 - float(eta[1:]) for eta in (config.selection.eta2, config.selection.eta3) if isinstance(eta, str)]
    return min(shares)


def _instruction_tokens(config: CurationConfig) -> int:
    return _tokens(Prompts(config.reviser.prompts).render("diagnose", [{"role": "user", "content": ""}], "", ""))


def _tokens(text: str) -> int:
    return round(len(text) / _CHARACTERS_A_TOKEN) + _TOKENS_A_MESSAGE
