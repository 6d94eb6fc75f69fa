"""What can be known of a run before it costs anything: behind `figa check`. Downloads no model and calls none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig
from pipeline.labels.loading import open_tokenizer
from pipeline.models.local import catalog
from pipeline.models.local.download import cache_folder
from pipeline.run import context
from pipeline.run.intake import Intake
from pipeline.run.plan import resolve_entry_stage

_ROWS = 100


def preflight(config: CurationConfig, warn: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Yields what is in order, as (what, detail). Raises the CurationError that a run with this configuration would."""
    source = sources.resolve_source(config.source, warn)
    adapters = sources.open_adapters(config.source, source, warn)
    config = resolve_entry_stage(config, adapters)
    context.check(config)
    yield "settings", f"valid; output in {config.out}"
    intake = Intake(config.source, adapters)
    limit = min(config.source.limit or _ROWS, _ROWS)
    rows, rejects = intake.take(itertools.islice(sources.records(source, warn=warn), limit))
    if rejects and not intake.understood:
        raise sources.all_bad(len(rows), rejects[0][1], adapters)
    yield "source", f"{source.location}: {len(rows) - len(rejects)} of the first {len(rows)} rows are usable"
    name, settings = context.tokenizer_settings(config)
    if _missing(name):
        yield "tokenizer", f"{name}: comes with the model, which the run downloads first"
    else:
        tokenizer = open_tokenizer(name, settings)
        bad = {index for index, _ in rejects}
        first = next((row for index, row in enumerate(rows) if index not in bad), None)
        if first:
            tokenizer.tokenize(first["messages"], first["reference"])
        yield "tokenizer", f"{name}: its template renders the first row"
    if config.needs_generation:
        for role, model in (("policy", config.policy.model), ("reviser", config.reviser.model)):
            yield role, _described(model)
    yield "reward", config.reward.model if config.needs_rewards else "not used: the source has pre-made pairs"


def _described(model: str) -> str:
    spec = ModelSpec.parse(model)
    if spec.provider != "local":
        return f"{model}: named right, and the key it needs is set; it was not called"
    size = f"{catalog.get(spec.name).size_mb} MB"
    return f"{model}: {f'to be downloaded, {size}' if _missing(model) else 'downloaded'}"


def _missing(name: str) -> bool:
    """Whether an embedded model is not in the cache; False for what is none."""
    embedded = name.removeprefix("local/")
    if embedded == name or Path(name).is_dir():
        return False
    return not (cache_folder() / catalog.get(embedded).filename).is_file()
