"""Where something made from a data set comes from."""

from __future__ import annotations

from typing import Any

from pipeline.dataset import manifest
from pipeline.dataset.open import PairDataset


def lineage(dataset: PairDataset) -> dict[str, Any]:
    """What names the data set whatever folder it lies in: the manifest's digest covers the hashes of all its files."""
    named = {name: dataset.manifest[name] for name in ("run_digest", "schema_version", "version")}
    return {"manifest": manifest.digest_of(dataset.manifest), **named}
