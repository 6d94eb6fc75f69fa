"""What a run's own scores say of its reward model, for its summary, card and manifest. Asks no model.

Two rules, over the scored answers before any is selected: it should prefer the reference to the initial answer in at least
60 % of the rows, or select and the gain gate pick by chance; and length should not explain it: the rank correlation of
score and length (characters, over all references and initial answers) is at most 0.71 either way, half of the variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rewards.measures import spearman

LEAST_PREFERRED = 0.6
MOST_EXPLAINED = 0.5
COLUMNS = ["reference", "initial", "reward_reference", "reward_initial"]
# Enough for either figure to be within a percent.
MOST_ROWS = 20_000
# Of fewer rows nothing is said.
FEWEST_ROWS = 20


def measure(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """rows, prefers_reference (a share, ties against it) and length_correlation, of the first 20,000 rows or so.

    Tables have the columns `COLUMNS`; no more than needed are taken.
    """
    taken: list[pa.Table] = []
    for table in tables:
        taken.append(table)
        if sum(map(len, taken)) >= MOST_ROWS:
            break
    rows = sum(map(len, taken))
    if not rows:
        return {"rows": 0}
    table = pa.concat_tables(taken)
    reference, initial = (table[f"reward_{side}"].to_numpy().astype(np.float64) for side in ("reference", "initial"))
    lengths = [pc.utf8_length(table[side]).to_numpy().astype(np.float64) for side in ("reference", "initial")]
    found = spearman(np.concatenate([reference, initial]), np.concatenate(lengths))
    return {
        "rows": rows,
        "prefers_reference": round(float((reference > initial).mean()), 4),
        "length_correlation": None if found is None else round(found, 4),
    }


def warnings(manifest: dict[str, Any]) -> list[str]:
    """What the run's owner should know of its reward model, by the manifest's `reward_check`; a line each."""
    measured = manifest.get("reward_check")
    if not measured or measured["rows"] < FEWEST_ROWS:
        return []
    told, name = [], manifest["models"]["reward"]["name"]
    preferred, correlation = measured["prefers_reference"], measured["length_correlation"]
    if preferred < LEAST_PREFERRED:
        told.append(
            f"the reward {name} prefers the reference to the initial answer in only {preferred:.0%} of {measured['rows']} "
            "rows: what it selects and lets pass is near chance, or the references are no better than the policy"
        )
    if correlation is not None and correlation**2 > MOST_EXPLAINED:
        longer = "longer" if correlation > 0 else "shorter"
        told.append(
            f"the reward {name} is mostly explained by length: {longer} answers score higher (rank correlation "
            f"{correlation:+.2f})"
        )
    return [f"{line}. Judge it by pairs of your own: figa rewards check" for line in told]
