"""What a choice of η1, η2, η3 selects and costs, from the rewards in a run's work folder. Calls no model.

Costs are what revising the selected rows would take if they were like the run's own revisions; where there are none yet,
like its scored rows by the estimate of --dry-run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from pipeline.config.settings import SelectionSettings
from pipeline.dataset import manifest
from pipeline.errors import ConfigError, InputError
from pipeline.run import plan, record
from pipeline.run.estimate import revision_price
from pipeline.stages.select import SCORES, passing, picked, resolve
from pipeline.storage import stage_files
from pipeline.storage.stage_files import StageFile

_ESTIMATED = 1000  # rows
# From strict to loose; the default of the settings is among them.
_DEFAULTS = ["q0.2,q0.5,0", "q0.3,q0.5,0", "q0.5,q0.5,0", "q0.5,q0.3,0", "q0.7,q0.3,0", "q0.9,off,0"]


class Choice(NamedTuple):
    """given: η1 η2 η3 as typed; numbers: as resolved over the rows, None for off. cost_usd: None when not known."""

    given: tuple[str, ...]
    numbers: tuple[float | None, ...]
    rows: int
    share: float
    cost_usd: float | None


def scored_rows(out: Path) -> pa.Table:
    """reward_reference and reward_initial of every scored (and picked) row. Raises InputError while scoring isn't finished."""
    files = _scored_files(out)
    missing = files.count(None)
    if not files or missing:
        state = f"{missing} of {len(files)} shards are not scored yet" if files else "no planned source is there"
        hint = "run figa build until the stage score is done, and keep its folder work/"
        if record.recall(out).get("settings", {}).get("source", {}).get("enters_at") == "filter":
            hint = "a run of finished pairs scores them with --set source.enters_at=score"
        raise InputError(f"{out / 'work'}: {state}; {hint}")
    pick = record.recall(out).get("settings", {}).get("policy", {}).get("pick", "first")
    return pa.concat_tables([picked(stage_files.read(file, SCORES), pick) for file in files if file])


def choices(table: pa.Table, wanted: Sequence[str], price: float | None) -> list[Choice]:
    """What each choice (default: _DEFAULTS) selects. price: US dollars per revised row. ConfigError for an unreadable one."""
    results = []
    for text in wanted or _DEFAULTS:
        given, settings = _parsed(text)
        thresholds = resolve(settings, [table])
        rows = int(np.all([np.ones(len(table), bool), *passing(table, thresholds).values()], axis=0).sum())
        cost = None if price is None else rows * price
        results.append(Choice(given, tuple(thresholds.values()), rows, rows / max(1, len(table)), cost))
    return results


def price_of_revision(out: Path) -> tuple[float | None, str]:
    """Mean US dollars of revising a row, its judge included (None when not known), and how it is known."""
    content = manifest.load(out) or {}
    revised = next((step["in"] for step in content.get("funnel", []) if step["stage"] == "revise"), 0)
    paid = content.get("cost_usd_by_call", {})
    if revised and paid and not content.get("unpriced"):
        return sum(
            paid.get(call, 0.0) for call in ("diagnose", "revise", "filter")
        ) / revised, "as this run's own revisions"
    settings = record.recall(out).get("settings")
    if not settings:
        return None, "the run's settings are not in its folder work/"
    config = record.rerun_of(settings, [], out)
    rows: list[dict[str, Any]] = []
    for file in _scored_files(out):
        if file and len(rows) < _ESTIMATED:
            rows += stage_files.read(file, ["messages", "reference", "initial"]).slice(0, _ESTIMATED).to_pylist()
    price = revision_price(config, rows)
    return price, f"no price of {config.reviser.model} is known" if price is None else "estimated from texts and prices"


def _scored_files(out: Path) -> list[StageFile | None]:
    """The scored shards of the plan; None for those not scored yet. A longer, earlier plan may have left more."""
    planned = plan.read(out / "work")
    return [stage_files.inspect(out / "work", "score", shard) for shard in range(planned.shards if planned else 0)]


def _parsed(text: str) -> tuple[tuple[str, ...], SelectionSettings]:
    parts = tuple(part.strip() for part in text.split(","))
    if len(parts) != 3:
        raise ConfigError(f"--eta {text}: expected η1,η2,η3, each a number, a quantile such as q0.3, or off")
    try:
        return parts, SelectionSettings(**dict(zip(("eta1", "eta2", "eta3"), parts, strict=True)))
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}"
        raise ConfigError(f"--eta {','.join(parts)}: {message}") from None
