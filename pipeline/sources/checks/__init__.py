"""Which rows leave before money is spent on them, each with a reason and evidence.

    basic                too short, too long, in another language than those wanted
    plugins              whatever a user's own functions refuse
    decontaminate        shares a run of words with an evaluation set
    near_duplicates      says nearly what an earlier row says

Exact duplicates are rejected where rows get their ids (`run/intake.py`). This package reads no source and writes no file.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.config.settings import SourceSettings
from pipeline.sources import files
from pipeline.sources.checks import basic, decontaminate, plugins
from pipeline.sources.checks.common import Check

# Raise when a check decides otherwise about the same row.
CODE = 2


def checks(settings: SourceSettings) -> list[Check]:
    """The checks that the settings name, cheapest first. UsageError for what can't be loaded or read."""
    named = [basic.length(settings)]
    if settings.languages:
        named.append(basic.language(settings))
    named += [plugins.check(name) for name in settings.plugins]
    if settings.decontaminate:
        named.append(decontaminate.check(settings))
    return named


def identity(settings: SourceSettings) -> list[Any]:
    """What the checks decide by beyond the settings themselves: files' content, code, library versions."""
    parts: list[Any] = [CODE, *(plugins.identity(name) for name in settings.plugins)]
    parts += [files.content(path) for entry in settings.decontaminate for path in decontaminate.paths(entry)]
    if settings.languages:
        parts.append(_version("py3langid"))
    if settings.near_duplicates is not None:
        parts.append(_version("rensa"))
    return parts


def _version(package: str) -> list[str]:
    try:
        return [package, version(package)]
    except PackageNotFoundError:  # the check itself says what to install
        return [package]
