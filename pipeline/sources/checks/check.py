"""What a curation check is, and how a missing optional library is told."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

from pipeline.errors import ConfigError
from pipeline.sources import SourceRow

# Called with each row in reading order; raises RowReject when the row must not go on.
Check = Callable[[SourceRow], None]


def optional(module: str, setting: str) -> ModuleType:
    """A library of the extra `curation`; a ConfigError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{setting} needs the package {module.partition('.')[0]}: pip install -e '.[curation]'"
        ) from None
