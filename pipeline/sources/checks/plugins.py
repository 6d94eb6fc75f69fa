"""A user's own checks: PII, toxicity, or whatever a data set needs.

`source.plugins: [my_checks:has_email]` imports `my_checks` and calls `has_email(messages, reference)` for every row.
It returns None to keep the row, or the reason to reject it: a short snake_case word such as `pii_email`, which the funnel
then counts, or a sentence, which goes into the evidence. Importing a module runs it: name only code you trust. A name is
only ever taken from the run's settings, never from data.
"""

import copy
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, RowReject
from pipeline.sources import SourceRow
from pipeline.sources.checks.common import Check
from pipeline.text import describe_error

Plugin = Callable[[list[dict[str, str]], str], str | None]
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_REASON = re.compile(r"[a-z][a-z0-9_]{0,39}")


def load(name: str) -> Plugin:
    """The function that `module:function` names; a ConfigError says what is wrong with the name or the module."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"source.plugins: {name!r} is not of the form module:function")
    module, _, function = name.partition(":")
    try:
        plugin: Plugin = getattr(importlib.import_module(module), function)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise ConfigError(f"source.plugins: {name} can't be imported ({describe_error(error)})") from error
    if not callable(plugin):
        raise ConfigError(f"source.plugins: {name} is not a function but {type(plugin).__name__}")
    return plugin


def identity(name: str) -> list[str]:
    """The plug-in's name and its module's content, so that editing a plug-in makes another plan."""
    function: Any = inspect.unwrap(load(name))
    try:
        content = Path(inspect.getfile(inspect.getmodule(function) or function)).read_bytes()
    except (TypeError, OSError):  # a built-in function, or one without a file
        content = b""
    return [name, hashlib.sha256(content).hexdigest()]


def check(name: str) -> Check:
    """The check by the plug-in of that name."""
    plugin = load(name)

    def refuse(row: SourceRow) -> None:
        try:
            answer = plugin(copy.deepcopy(row.messages), row.reference)
        except Exception as error:  # the user's code may raise anything
            raise ConfigError(f"source.plugins: {name} failed ({describe_error(error)})") from error
        if answer is None:
            return
        if not isinstance(answer, str) or not answer:
            got = f"it returned {answer!r:.80}"
            raise ConfigError(f"source.plugins: {name} must return None or a reason as text, {got}")
        raise RowReject(answer if _REASON.fullmatch(answer) else "plugin", plugin=name, got=answer[:200])

    return refuse
