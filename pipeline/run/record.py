"""What determines a run, and what a folder remembers of earlier ones: their settings, and the answers that were paid.

No digest and no published file depends on work/run.json, which is for `figa status`, or on work/paid.json.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline import __version__, rewards, schema
from pipeline.config.loading import load_config
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError, StorageError, UsageError
from pipeline.labels.loading import folder_digest
from pipeline.models import event_loop, factory
from pipeline.models.journal import Journal
from pipeline.prompts import Prompts
from pipeline.sources import checks
from pipeline.stages.table import STAGES, Inputs
from pipeline.storage.atomic import write_text

_NAME = "run.json"
WRITTEN_BY = {"version": __version__, "schema_version": schema.SCHEMA_VERSION}
SOURCE_CONTENT = "the source's content"
# Sums over a million answers take a tenth of a second.
_SHARE_OF_TIME = 0.01


def data_settings(config: CurationConfig) -> dict[str, Any]:
    """Every setting that changes the data, by section, as the manifest has them; where the folder lies does not."""
    settings = {name: getattr(config, name).data_settings() for name in type(config).model_fields if name != "run"}
    del settings["output"]["dir"]
    return settings


def run_inputs(config: CurationConfig, source_digest: str) -> Inputs:
    """All that determines what a run publishes: the content of source, prompts and models, the limit, and the settings."""
    settings = data_settings(config)
    del settings["reviser"]["prompts"], settings["reward"]["prompts"]
    # What these files hold is in the digests of the source and of its checks.
    del settings["source"]["input"], settings["source"]["decontaminate"]
    # On the Hub, by name alone: listing files takes longer than a run with nothing to do.
    files: list[object] = [folder_digest(config.labels.tokenizer, weights=False)]
    files += [rewards.identify_models(config.reward)] if config.needs_rewards else []
    return {
        SOURCE_CONTENT: source_digest,
        "curation checks": checks.identity(config.source),
        "source.limit": config.source.limit,
        **({"source.target": config.source.target} if config.source.target else {}),
        "settings": settings,
        "the reviser's prompts": Prompts(config.reviser.prompts).digest,
        "the models": [factory.identity(ModelSpec.parse(m)) for m in (config.policy.model, config.reviser.model)],
        "the files of tokenizer and reward model": files,
        **({"the judge of revisions": rewards.identify_judge(config.judge)} if config.judge else {}),
        "the program": [__version__, schema.SCHEMA_VERSION, {stage.name: stage.version for stage in STAGES}],
    }


def settings(config: CurationConfig) -> dict[str, Any]:
    """The same and how much is read."""
    values = data_settings(config)
    values["source"] |= {"limit": config.source.limit, "target": config.source.target}
    return values


def remember(config: CurationConfig, run_digest: str, inputs: dict[str, str], unpriced: Sequence[str]) -> None:
    """Write what is run. inputs: short digests of what determines it; unpriced: models without a price, of any run here."""
    callers = [config.policy, config.reviser, *rewards.judge_settings(config.reward), config.judge]
    named = [(factory.address(ModelSpec.parse(each.model)), each.api_key_env) for each in callers if each]
    facts = WRITTEN_BY | {
        "run_digest": run_digest,
        "settings": settings(config),
        "inputs": inputs,
        "unpriced": list(unpriced),
        # The variables that settings name for keys, by model with its address; for `figa cancel`.
        "keys": {address: variable for address, variable in named if variable},
    }
    write_text(config.out / "work" / _NAME, json.dumps(facts, indent=1, ensure_ascii=False) + "\n", private=True)


def recall(out: Path) -> dict[str, Any]:
    """What `remember` wrote; empty when nothing usable is there."""
    try:
        facts = json.loads((out / "work" / _NAME).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) and isinstance(facts.get("settings", {}), dict) else {}


def check_not_newer(out: Path, manifest: dict[str, Any] | None) -> None:
    """Raises UsageError when a newer version of this program wrote in the folder: its files would be lost."""
    for facts in (manifest or {}, recall(out)):
        if schema.is_newer(facts.get("schema_version")):
            raise UsageError(
                f"{out}: was written by figa-pipeline {facts.get('version')} with schema version {facts['schema_version']}, "
                f"and this is {__version__} with {schema.SCHEMA_VERSION}: it would overwrite what it doesn't know. Install the "
                "newer one, or choose another --out"
            )


def rerun_of(
    settings: dict[str, Any], assignments: Sequence[str], out: Path, *, allow_code: bool = False
) -> CurationConfig:
    """The configuration that has `settings`, changed by `--set` assignments. Raises ConfigError, also where they run code."""
    try:
        load_config(base=settings)
    except ConfigError as error:
        raise ConfigError(f"{out}: its settings are of another version ({error}); name yours with --config") from None
    return load_config(None, [*assignments], {"output.dir": str(out)}, base=settings, allow_code=allow_code)


class Paid:
    """work/paid.json: how many answers the journal had, and what they cost, so that one that lost some is noticed.

    A journal whose log (`journal.db-wal`) is gone is sound and poorer: nothing in the file itself shows it.
    """

    def __init__(self, work: Path, journal: Journal) -> None:
        self._path, self._journal = work / "paid.json", journal
        self._lock = threading.Lock()
        self._next = 0.0

    def record(self, *, now: bool = False) -> None:
        """Write what the journal has; not `now`: only if that takes at most a hundredth of the time. Threads may call it."""
        with self._lock:
            start = time.monotonic()
            if now or start >= self._next:
                write_text(self._path, json.dumps(self._journal.paid()), private=True)
                self._next = time.monotonic() + (time.monotonic() - start) / _SHARE_OF_TIME

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record at the block's end, however it ends."""
        try:
            yield
        finally:
            self.record(now=True)

    def missing(self) -> str | None:
        """The warning about answers that the journal had and has not; their cost counts as spent from then on."""
        known: dict[str, list[int]] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            content = json.loads(self._path.read_text("utf-8"))
            known = {stage: [int(answers), int(money)] for stage, (answers, money) in content.items()}
        paid = self._journal.paid()
        answers, lost = 0, 0
        for stage, (number, money) in known.items():
            has, spent = paid.get(stage, [0, 0])
            answers += max(0, number - has)
            if money > spent:
                lost += money - spent
                event_loop.run(self._journal.charge(stage, "", "lost", (money - spent) / 1e12))
        if not answers:
            return None
        with suppress(StorageError):
            self.record(now=True)
        return (
            f"{self._journal.path}: {answers} answers that were paid are no longer in it (was its log, journal.db-wal, "
            f"deleted?). What unfinished shards need of them is paid again, ${lost / 1e12:.4f} at most; --budget counts "
            "the lost ones as spent"
        )
