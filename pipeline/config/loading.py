"""A run's settings from defaults < YAML file < environment (`FIGA_REVISER__MODEL=…`) < `--set reviser.model=…` < flags.

Unknown keys are errors that name the nearest known one.
"""

import copy
import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from pipeline.config.settings import CurationConfig
from pipeline.config.values import Operational, Section
from pipeline.errors import ConfigError
from pipeline.text import describe_error, one_line, without_queries

ENV_PREFIX = "FIGA_"
_RUNS_CODE = ("source.plugins", "reward.trust_remote_code")


def load_config(
    file: Path | None = None,
    assignments: list[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    base: Mapping[str, Any] | None = None,
    allow_code: bool = True,
) -> CurationConfig:
    """Merge the YAML `file`, or `base` in its place, the `FIGA_…` variables of `environ`, assignments and flags.

    assignments: texts `key.sub=value`; flags: values by dotted key, None for those that are not set. allow_code: whether the
    file, or base, may name code that is run.
    Raises ConfigError with one line that names the setting, what was expected and the nearest known key.
    """
    merged: dict[str, Any] = _read_yaml(file) if file else copy.deepcopy(dict(base or {}))
    if not allow_code:
        _refuse_code(merged, f"--config {file}" if file else "the last run's settings")
    for name, text in sorted((environ or {}).items()):
        if name.startswith(ENV_PREFIX) and "__" in name:
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            _put(merged, key, _scalar(text, name, empty_counts=key.endswith(".system")))
    for assignment in assignments or []:
        key, equals, text = assignment.partition("=")
        if not equals:
            given = re.match(r"[\w.]{0,80}", assignment)[0]  # type: ignore[index]
            raise ConfigError(f"--set {given}: expected key.sub=value, for example --set reviser.max_tokens=800")
        _put(merged, key.strip(), _scalar(text, f"--set {key}", empty_counts=key.strip().endswith(".system")))
    for key, value in (flags or {}).items():
        if value is not None:
            _put(merged, key, value)
    try:
        return CurationConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _refuse_code(settings: dict[str, Any], where: str) -> None:
    """A file of somebody else's must not run code only because it is read. Raises ConfigError."""
    for name in _RUNS_CODE:
        section, _, key = name.partition(".")
        values = settings.get(section)
        if isinstance(values, dict) and values.get(key):
            what = f"{name} runs code as you: {one_line(values[key])}"
            raise ConfigError(f"{where}: {what}; give --allow-plugins if you trust it")


# YAML 1.1 reads 010 as 8 and 1:30 as 90.
_OCTAL_OR_BASE_60 = re.compile(r"[-+]?(0[\d_]+|\d[\d_]*(:[0-5]?\d)+(\.\d*)?)")


def _scalar(text: str, where: str, *, empty_counts: bool) -> Any:
    """The value of one line: YAML, of which lists and objects are in brackets, so that a sentence with a colon is text.

    empty_counts: nothing is an empty text, rather than the default.
    """
    if (empty_counts and not text.strip()) or _OCTAL_OR_BASE_60.fullmatch(text.strip()):
        return text.strip()
    try:
        value = yaml.safe_load(text)
        return value if text.lstrip()[:1] in ("[", "{") or not isinstance(value, list | dict) else text
    except Exception:  # whatever PyYAML's constructors happen to raise
        if ": " in text and text.lstrip()[:1] not in ("[", "{", '"', "'"):
            return text
        # The value itself may hold a secret.
        raise ConfigError(f"{where}: the value is not YAML; quote it if it is text") from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--config {file}: no such file") from None
    except Exception as error:  # likewise
        # Not the line itself, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        why = f"line {mark.line + 1}, column {mark.column + 1}" if mark else describe_error(error)
        raise ConfigError(f"--config {file}: not a readable YAML file ({why})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {file}: expected sections such as `reviser:`, got {type(content).__name__}")
    # A section whose lines are all commented out is None.
    return {key: {} if value is None else value for key, value in content.items()}


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{dotted}: {parent} has a value already, it can't have parts")
        tree = child
    tree[last] = value


def _explain(error: ValidationError) -> str:
    """The first error in one line, with the nearest known key for an unknown one."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = [
            *_sections(),
            *(f"{name}.{key}" for name, section in _sections().items() for key in section.model_fields),
        ]
        # Equally near ones are both named: model and mode.
        near = difflib.get_close_matches(name, known, 2, 0.9) or difflib.get_close_matches(name, known, 1, 0.5)
        near = near or [key for key in known if key.split(".")[-1] == path[-1]][:1]
        guess = " or ".join(near)
        hint = f"; did you mean {guess}?" if guess else f"; sections are {', '.join(CurationConfig.model_fields)}"
        return f"unknown setting {name}{hint}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message, got = first["msg"].removeprefix("Value error, "), repr(first["input"])
    # Parameters for a server may hold secrets; a name of a variable may be the key itself.
    hidden = path[-1] in ("extra", "request", "api_key_env", "judge_api_key_env")
    line = f"setting {name}: {message}{'' if got in message or hidden else f', got {got}'}{more}"
    # No message repeats the password or the query of an address.
    return without_queries(re.sub(r"(://|@)[^@\s'\"]*@", r"\1…@", line))


def listed_settings() -> list[dict[str, Any]]:
    """Every setting: name, type, default as JSON, meaning, and whether it is operational."""
    definitions = CurationConfig.model_json_schema()["$defs"]
    return [
        {
            "name": f"{name}.{key}",
            "type": _type(definitions[section.__name__]["properties"][key]),
            "default": json.dumps(setting.get_default(call_default_factory=True), ensure_ascii=False, default=list),
            "description": setting.description or "",
            "operational": name == "run" or Operational in setting.metadata,
        }
        for name, section in _sections().items()
        for key, setting in section.model_fields.items()
    ]


def _sections() -> dict[str, type[Section]]:
    return {name: cast("type[Section]", field.annotation) for name, field in CurationConfig.model_fields.items()}


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema's type in words: `a | b` for choices and unions."""
    if "anyOf" in schema:
        return " | ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("format") or schema.get("type", "any"))
