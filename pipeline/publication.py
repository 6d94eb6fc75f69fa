"""Publish a finished run: shards, reject ledger, data card, and the manifest that accounts for every row."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pipeline import __version__, card, schema
from pipeline.config import CurationConfig
from pipeline.context import Context
from pipeline.errors import StorageError
from pipeline.models import connect
from pipeline.models.spec import ModelSpec
from pipeline.plan import Plan
from pipeline.sources import ResolvedSource
from pipeline.storage import manifest, stagefile
from pipeline.storage.atomic import write_text
from pipeline.storage.publish import publish_rejects, publish_rows, remove_unnamed


def publish(
    run: Context, source: ResolvedSource, plan: Plan, thresholds: dict[str, float | None], run_digest: str
) -> dict[str, Any]:
    """Write everything that a reader gets, the manifest last; returns it. Raises StorageError if a row is missing."""
    config, out = run.config, run.config.out
    labels = _describe_labels(run)
    metadata = {"figa.schema_version": schema.SCHEMA_VERSION, "figa.labels": json.dumps(labels, sort_keys=True)}
    files = stagefile.inspect_all(run.work, "label", plan.shards)
    entries = publish_rows(out, files, config.output.rows_per_file, metadata)
    ledger, reasons = publish_rejects(out, run.work, plan.shards)
    content = {
        "format": "figa-pipeline",
        "version": __version__,
        "schema_version": schema.SCHEMA_VERSION,
        "run_digest": run_digest,
        "rows": _account(plan, entries, ledger),
        "funnel": _funnel(plan, reasons),
        "source": _describe_source(config, source),
        "models": _describe_models(run),
        "thresholds": thresholds,
        "labels": labels,
        "settings": _settings(config),
        "prompts": run.prompts.digest,
        "calls": run.journal.calls(),
        "cost_usd": round(run.journal.spent(), 6),
        "files": entries,
        "rejected_files": ledger,
    }
    write_text(out / "README.md", card.render(content))
    manifest.write(out, content)
    remove_unnamed(out, [*entries, *ledger])
    return content


def _account(plan: Plan, entries: list[dict[str, Any]], ledger: list[dict[str, Any]]) -> dict[str, int]:
    published, rejected = (sum(entry["rows"] for entry in group) for group in (entries, ledger))
    if plan.rows != published + rejected:
        raise StorageError(
            f"{plan.rows} rows were read but {published} published + {rejected} rejected are on disk: a stage file is "
            "not of this run. Delete the folder work/ but for journal.db and run again; answers are not paid twice"
        )
    return {"read": plan.rows, "published": published, "rejected": rejected}


def _funnel(plan: Plan, reasons: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    """One entry a stage: rows that came in, rows that went on, and why the others did not."""
    rows = plan.rows
    funnel = []
    for stage in schema.STAGES:
        left = sum(reasons[stage].values())
        counts = dict(sorted(reasons[stage].items(), key=lambda item: (-item[1], item[0])))
        funnel.append({"stage": stage, "in": rows, "out": rows - left, "rejected": counts})
        rows -= left
    return funnel


def _describe_source(config: CurationConfig, source: ResolvedSource) -> dict[str, Any]:
    return {
        "name": config.source.name,
        "resolved": source.resolved,
        "location": source.location,
        "revision": source.revision,
        "split": source.split,
        "licence": source.licence,
        "digest": source.digest,
    }


def _describe_models(run: Context) -> dict[str, Any]:
    config = run.config
    described: dict[str, Any] = {
        role: {"name": name, **connect.identity(ModelSpec.parse(name))}
        for role, name in (("policy", config.policy.model), ("reviser", config.reviser.model))
    }
    described["reward"] = {"name": run.reward.name, "digest": run.reward.digest}
    return described


def _describe_labels(run: Context) -> dict[str, Any]:
    """What a trainer must know to use the labels, and `verify` to check them."""
    import rapidfuzz
    import tokenizers

    settings = run.config.labels
    return {
        **settings.data_settings(),
        "tokenizer": run.tokenizer.name,
        "fingerprint": run.tokenizer.fingerprint,
        "eos_id": run.tokenizer.eos_id,
        "libraries": {"rapidfuzz": rapidfuzz.__version__, "tokenizers": tokenizers.__version__},
    }


def _settings(config: CurationConfig) -> dict[str, Any]:
    """Every setting that changes the data; where the folder lies does not."""
    settings = {name: getattr(config, name).data_settings() for name in type(config).model_fields if name != "run"}
    del settings["output"]["dir"]
    return settings
