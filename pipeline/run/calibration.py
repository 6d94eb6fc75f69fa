"""What a choice of η1, η2, η3 selects and costs, from the scores of a run's work folder. Asks no model.

Costs are what revising the selected rows would take if they were like the run's own revisions; where there are none yet,
like its scored rows by the estimate of --dry-run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from pipeline.config.settings import SelectionSettings
from pipeline.errors import ConfigError, InputError
from pipeline.run import plan, record
from pipeline.stages.select import SCORES, picked, resolve
from pipeline.storage import stage_files

_ESTIMATED = 1000  # rows
Scores = npt.NDArray[np.float64]
# From strict to loose; the default of the settings is among them.
_QUANTILES = (("q0.2", "q0.5"), ("q0.3", "q0.5"), ("q0.5", "q0.5"), ("q0.5", "q0.3"), ("q0.7", "q0.3"), ("q0.9", "off"))


@dataclass(frozen=True, slots=True)
class Choice:
    """given: η1 η2 η3 as typed; numbers: as resolved over the scores, None for off. cost_usd: None when not known."""

    given: tuple[str, str, str]
    numbers: tuple[float | None, float | None, float | None]
    rows: int
    share: float
    cost_usd: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def scores(out: Path) -> pa.Table:
    """reward_reference and reward_initial of every scored row, of several samples the picked ones.

    Raises InputError when the scoring stage isn't there.
    """
    work = out / "work"
    shards = _planned(work)
    scored = [stage_files.inspect(work, "score", shard) for shard in range(shards)]
    missing = sum(file is None for file in scored)
    if not shards or missing:
        state = f"{missing} of {shards} shards are not scored yet" if shards else "no planned source is there"
        raise InputError(f"{work}: {state}; run figa build until the stage score is done, and keep its folder work/")
    pick = record.recall(out).get("settings", {}).get("policy", {}).get("pick", "first")
    return pa.concat_tables([picked(stage_files.read(file, SCORES), pick) for file in scored if file])


def choices(table: pa.Table, wanted: Sequence[str], price: float | None) -> list[Choice]:
    """One a choice such as "q0.5,q0.3,0"; none asks for the standing ones. price: US dollars a revised row.

    Raises ConfigError for a choice that can't be read.
    """
    given = [_three(text) for text in wanted] or [(*pair, "0") for pair in _QUANTILES]
    initial, reference = (table[name].to_numpy().astype(np.float64) for name in ("reward_initial", "reward_reference"))
    made = []
    for three in given:
        try:
            settings = SelectionSettings(**dict(zip(("eta1", "eta2", "eta3"), three, strict=True)))
        except ValidationError as error:
            first = error.errors()[0]
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"--eta {','.join(three)}: {first['loc'][0]}: {message}") from None
        eta = resolve(settings, [table])
        kept = np.ones(len(table), bool)
        if eta.eta1 is not None:
            kept &= initial < eta.eta1
        if eta.eta2 is not None:
            kept &= reference > eta.eta2
        if eta.eta3 is not None:
            kept &= reference - initial > eta.eta3
        rows = int(kept.sum())
        cost = None if price is None else rows * price
        made.append(Choice(three, (eta.eta1, eta.eta2, eta.eta3), rows, rows / max(1, len(table)), cost))
    return made


def price_of_revision(out: Path) -> tuple[float | None, str]:
    """Mean US dollars of diagnosing and revising a row, and how it is known: by what this folder paid for its own revisions,
    else by the reviser's price and the texts that are scored; None when that isn't known either.
    """
    from pipeline.dataset import manifest

    content = manifest.load(out) or {}
    revised = next((step["in"] for step in content.get("funnel", []) if step["stage"] == "revise"), 0)
    paid = content.get("cost_usd_by_call", {})
    if revised and paid and not content.get("unpriced"):
        return float(
            sum(paid.get(call, 0.0) for call in ("diagnose", "revise"))
        ) / revised, "as this run's own revisions"
    return _estimated(out)


def _estimated(out: Path) -> tuple[float | None, str]:
    from pipeline.run.estimate import revision_price
    from pipeline.run.record import recall, rerun_of

    settings = recall(out).get("settings")
    if not settings:
        return None, "the run's settings are not in its folder work/"
    config = rerun_of(settings, [], out)
    rows: list[dict[str, Any]] = []
    for shard in range(_planned(out / "work")):
        file = stage_files.inspect(out / "work", "score", shard)
        if file and len(rows) < _ESTIMATED:
            rows += stage_files.read(file, ["messages", "reference", "initial"]).slice(0, _ESTIMATED).to_pylist()
    price = revision_price(config, rows)
    return price, f"no price of {config.reviser.model} is known" if price is None else "estimated from texts and prices"


def _planned(work: Path) -> int:
    """Shards of the plan; 0 without one. Behind them may lie shards of a longer one that stood before."""
    found = plan.read(work)
    return found[0].shards if found else 0


def _three(text: str) -> tuple[str, str, str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise ConfigError(f"--eta {text}: expected η1,η2,η3, each a number, a quantile such as q0.3, or off")
    return parts[0], parts[1], parts[2]
