"""Publish a finished run: shards, reject ledger, data card, and the manifest that accounts for every row."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline import schema, sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig
from pipeline.dataset import card, croissant, manifest
from pipeline.dataset.writer import beyond, forget_superseded, publish_rejects, publish_rows, supersede
from pipeline.errors import StorageError, UsageError
from pipeline.labels.loading import describe
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.models import factory
from pipeline.models.adaptation import describe as describe_changes
from pipeline.models.chat import ChatModel
from pipeline.rewards import diagnostics
from pipeline.run import record
from pipeline.run.context import Context
from pipeline.run.plan import Plan
from pipeline.run.pricing import prices, unpriced
from pipeline.sources import ResolvedSource
from pipeline.stages.select import Thresholds
from pipeline.storage import stage_files
from pipeline.storage.atomic import write_text
from pipeline.storage.location import journal_of
from pipeline.storage.ours import remove_temporaries
from pipeline.text import redact_paths

_LOST = "a stage file is not of this run. Delete the folder work/ but for journal.db and run again; answers are not paid twice"


def publish(
    run: Context, source: ResolvedSource, plan: Plan, thresholds: Thresholds, run_digest: str
) -> dict[str, Any]:
    """Write everything that a reader gets, the manifest last; returns it. Raises StorageError if a row is missing."""
    config, out = run.config, run.config.out
    labels = describe(run.tokenizer)
    files = {stage: stage_files.inspect_all(run.work, stage, plan.shards) for stage in config.stages}
    scores = (stage_files.read(file, diagnostics.COLUMNS) for file in files.get("score", ()))
    target, metadata = config.source.target, file_metadata(labels, run_digest)
    entries = publish_rows(out, files["label"], config.output.rows_per_file, metadata, target)
    ledger, reasons = publish_rejects(out, run.work, plan.shards, config.stages, beyond(files["label"], target))
    content = {
        "run_digest": run_digest,
        "rows": account(plan.rows, entries, ledger, _LOST),
        "funnel": funnel(plan.rows, reasons, {stage: [file.notes for file in done] for stage, done in files.items()}),
        "source": _describe_source(config, source, plan),
        "models": _describe_models(run, source),
        "thresholds": dict(thresholds),
        **({"target": target} if target else {}),
        **({"reward_check": diagnostics.measure(scores)} if "score" in files else {}),
        "labels": labels,
        "settings": record.data_settings(config),
        "prompts": run.prompts.digest if config.needs_generation else None,
        "calls": run.journal.calls(),
        **_money(run),
        "unanswered": sum(file.unanswered for shards in files.values() for file in shards),
        "files": entries,
        "rejected_files": ledger,
    }
    return finish(out, content, run.tokenizer)


def file_metadata(labels: dict[str, Any], run_digest: str) -> dict[str, str]:
    """The metadata of every published Parquet file: its schema, its labels, and the data set that it belongs to."""
    return {
        "figa.schema_version": schema.SCHEMA_VERSION,
        "figa.labels": json.dumps(redact_paths(labels), sort_keys=True),
        "figa.run": run_digest,
    }


def finish(out: Path, content: dict[str, Any], tokenizer: LabelTokenizer | None, note: str = "") -> dict[str, Any]:
    """Write report, card and, last, the manifest; returns it. tokenizer None: a report without tokens; `note` says why."""
    from pipeline.report.page import write_report

    # `publication` counts the publications in this folder that differ from the one before.
    before = manifest.load_or_none(out) or {}
    content = {"format": "figa-pipeline", "publication": 0, **record.WRITTEN_BY, **content}
    known = {key: value for key, value in before.items() if key not in ("digest", "documents")} | {"publication": 0}
    changed = known != json.loads(json.dumps(content))
    content["publication"] = (before.get("publication", 1) if before else 0) + changed
    write_report(out, content, tokenizer, note=note)
    forget_superseded(out)
    write_text(out / "README.md", card.render(content))
    write_text(out / croissant.NAME, croissant.render(content))
    written = manifest.write(out, content | {"documents": manifest.documents(out)})
    supersede(out, [*content["files"], *content["rejected_files"]])
    return written


def written_by(content: dict[str, Any]) -> Literal["build", "relabel", "merge", "review"]:
    """Which command wrote the data set of a manifest."""
    last = content.get("lineage", [])[-1:]
    if not last:
        return "build"
    return "merge" if "merged" in last[0] else "review" if "review" in last[0] else "relabel"


def check_out(
    out: Path, roots: Sequence[Path], command: Literal["relabel", "merge", "review"]
) -> dict[str, Any] | None:
    """The manifest that `command` wrote in `out`, if any. UsageError for another command's, or an `out` in one of `roots`."""
    if inside := [root for root in roots if out.resolve().is_relative_to(root.resolve())]:
        raise UsageError(f"--out {out}: lies in the folder of {inside[0]}; name one outside it")
    current = manifest.load_or_none(out)
    if (current and written_by(current) != command) or journal_of(out).exists():
        wrote = "relabelling" if command == "relabel" else command
        raise UsageError(f"--out {out}: holds a data set that no {wrote} wrote; name another folder")
    return current


def find_current(out: Path, run_digest: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The manifest of this very run if it stands, else None, with leftovers removed. UsageError in a newer version's folder."""
    try:
        record.check_not_newer(out, manifest.load(out, sealed=False))
        manifest.load(out)
    except StorageError as error:
        warn(f"{str(error).rpartition(';')[0]}; what it named is published again")
    current = manifest.find_current(out, run_digest)
    if current:
        # A run that was killed after writing the manifest has left this to do.
        supersede(out, [*current["files"], *current["rejected_files"]])
    else:
        remove_temporaries(out)
    return current


def _money(run: Context) -> dict[str, Any]:
    """What providers reported, what they may bill besides, the prices, and models without a known one."""
    paid = {call: cost for call, (_, cost) in run.journal.money().items()}
    uncertain, names, used = round(run.journal.uncertain(), 6), unpriced(run.config), prices(run.config)
    above = {model: round(times, 3) for model, times in run.journal.overruns().items()}
    return {
        "cost_usd": round(sum(paid.values()), 6),
        "cost_usd_by_call": {call: round(cost, 6) for call, cost in paid.items()},
        **({"cost_uncertain_usd": uncertain} if uncertain else {}),
        **({"unpriced": names} if names else {}),
        **({"prices": used} if used else {}),
        **({"billed_above_limits": above} if above else {}),
    }


def account(
    read: int,
    entries: list[dict[str, Any]],
    ledger: list[dict[str, Any]],
    reason: str = "the data set changed meanwhile",
) -> dict[str, int]:
    """The manifest's counts of rows. Raises StorageError, with the likely reason, if a row is missing."""
    published, rejected = (sum(entry["rows"] for entry in group) for group in (entries, ledger))
    if read != published + rejected:
        on_disk = f"{published} published + {rejected} rejected are on disk"
        raise StorageError(f"{read} rows were read but {on_disk}: {reason}")
    return {"read": read, "published": published, "rejected": rejected}


def funnel(
    rows: int, reasons: Mapping[str, Counter[str]], notes: Mapping[str, Iterable[Mapping[str, int]]]
) -> list[dict[str, Any]]:
    """For each stage: rows in, rows out, the others by reason, and the sums of the stage's `notes`, if any."""
    steps = []
    for stage, counts in reasons.items():
        rejected = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        steps.append({"stage": stage, "in": rows, "out": rows - counts.total(), "rejected": rejected})
        rows -= counts.total()
        sums: Counter[str] = Counter()
        for noted in notes.get(stage, ()):
            sums.update(noted)
        if sums:
            steps[-1]["notes"] = dict(sorted(sums.items()))
    return steps


def _describe_source(config: CurationConfig, source: ResolvedSource, plan: Plan) -> dict[str, Any]:
    described = _describe_part(config, config.source.name, source)
    if source.parts:
        named = zip(sources.parts(source).items(), source.weights, strict=True)
        described["seed"] = source.seed
        described["parts"] = [_describe_part(config, name, part) | {"weight": weight} for (name, part), weight in named]
    return described | {"replaced_surrogates": plan.replaced_surrogates}


def _describe_part(config: CurationConfig, name: str, source: ResolvedSource) -> dict[str, Any]:
    shown = ("resolved", "location", "revision", "split", "licence", "digest")
    note = "" if source.parts or config.needs_generation else sources.get(source.adapter).note
    return {"name": name, **{key: getattr(source, key) for key in shown}, **({"note": note} if note else {})}


def _describe_models(run: Context, source: ResolvedSource) -> dict[str, Any]:
    described: dict[str, Any] = {"reward": {"name": "none"}}
    writers = [sources.get(part.adapter).writers for part in source.parts or (source,)]
    for role, names in zip(("policy", "reviser"), zip(*writers, strict=True), strict=True):
        described[role] = {"name": " + ".join(dict.fromkeys(names))}
        if run.config.needs_generation:
            name = getattr(run.config, role).model
            described[role] = {
                "name": name,
                **factory.identity(ModelSpec.parse(name)),
                **_changes([getattr(run, role)]),
            }
    if run.reward:
        described["reward"] = {**run.reward.describe(), **_changes(run.reward.chat_models)}
    if judge := run.judge:
        described["judge"] = {"name": judge.name, "digest": judge.digest, **judge.facts, **_changes(judge.chat_models)}
    return described


def _changes(models: Sequence[ChatModel]) -> dict[str, Any]:
    """What servers get in place of parameters that they refuse, by model; nothing where they take all."""
    changes = {model.name: describe_changes(model.adaptation.changes) for model in models if model.adaptation.changes}
    return {"changed_parameters": changes} if changes else {}
