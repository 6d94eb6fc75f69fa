"""What can be known of a run before it costs anything: behind `figa check`. Downloads no model and calls none."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError, RowReject
from pipeline.labels.loading import open_tokenizer
from pipeline.models.local import catalog
from pipeline.run import context
from pipeline.run.plan import first_rows, open_source

_ROWS = 100


def preflight(config: CurationConfig, warn: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Yields what is in order, as (what, detail). Raises the CurationError that a run with this configuration would."""
    config, source, adapters = open_source(config, warn)
    yield "settings", f"valid; output in {config.out}"
    records = itertools.islice(sources.records(source, warn=warn), config.source.limit)
    rows, taken, _ = first_rows(config, adapters, records, _ROWS)
    yield "source", f"{source.location}: {len(rows)} of the first {taken} rows are usable"
    name, settings = context.tokenizer_settings(config)
    if _missing(name):
        yield "tokenizer", f"{name}: comes with the model, which the run downloads first"
    else:
        tokenizer = open_tokenizer(name, settings)
        if rows:
            try:
                tokenizer.tokenize(rows[0]["messages"], rows[0]["reference"])
            except RowReject as reject:
                raise ConfigError(
                    f"labels.tokenizer {name}: the first row can't be labelled: {reject.reason} {reject.evidence}; set "
                    "labels.template, labels.template_options or another tokenizer"
                ) from None
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
    return name.startswith("local/") and not Path(name).is_dir() and not context.is_downloaded(name)
