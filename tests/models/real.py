"""The real SmolLM2 for tests, by the real fetch: from the cache, else downloaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ModelUnavailable
from pipeline.models.local import catalog
from pipeline.models.local.download import fetch


@pytest.fixture(scope="session")
def smollm2() -> Path:
    pytest.importorskip("xllamacpp", reason="the extra [local] is not installed")
    try:
        return fetch(catalog.get("smollm2-135m-instruct"))
    except ModelUnavailable as error:
        pytest.skip(str(error))
