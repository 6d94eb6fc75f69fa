"""A source by its name and input, as a run's settings would have it; text that no command line takes included."""

from typing import Any

from pipeline.config.settings import SourceSettings
from pipeline.sources import ResolvedSource, resolve_source
from pipeline.sources.files import Warn


def resolve(name: str, input: str | None = None, *, warn: Warn = print, **options: Any) -> ResolvedSource:
    return resolve_source(SourceSettings.model_construct(name=name, input=input, **options), warn)
