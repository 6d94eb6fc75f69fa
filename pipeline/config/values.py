"""Kinds of values that settings have: what may be written for them, and what is kept."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.config.model_names import PROVIDERS, SCORERS, ModelSpec
from pipeline.errors import ConfigError
from pipeline.storage.location import location

# The names of the adapters in `pipeline.sources`.
SOURCE_NAMES = "hh-rlhf sharegpt shp synthetic-gptj openorca alpaca ultrafeedback spa jsonl parquet".split()
# Marks a field that changes how a run is executed, not what it produces.
Operational = object()


def threshold(value: object) -> object:
    """`0.3` is a score, `q0.3` the 0.3 quantile of this run's scores, `null` or `off` no threshold."""
    # YAML reads a bare `off` as False.
    if value is None or value is False or value == "off":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number, a quantile such as q0.3, or off")
    text = str(value)
    try:
        number = float(text.removeprefix("q"))
    except ValueError:
        raise ValueError(f"expected a number, a quantile such as q0.3, or off; got {text!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {text!r}")
    if not text.startswith("q"):
        return number
    if not 0 <= number <= 1:
        raise ValueError(f"a quantile lies between q0 and q1, got {text!r}")
    return f"q{number}"


def model_spec(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected provider/model[@base_url]")
    try:
        return str(ModelSpec.parse(value))
    except ConfigError as error:
        raise ValueError(str(error)) from None


def reward_specs(value: object) -> str:
    """One model, or several with commas: the members of an ensemble."""
    if not isinstance(value, str):
        raise ValueError("expected provider/model[@base_url], or several with commas")
    return ",".join(model_spec(part) for part in value.split(","))


def folder(value: str) -> str:
    try:
        location(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value


def json_only(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            "expected values that JSON has: text, finite numbers, true, false, null, lists, mappings"
        ) from None
    return value


def comma_list(value: object) -> object:
    """`0.7,0.3` or `en, de`, as typed on a command line, is a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _told(pattern: str) -> Any:
    """What JSON Schema can say of a value's text: Prefect refuses the others when a run is submitted, naming the field."""
    return Field(json_schema_extra={"pattern": f"^{pattern}$"})


_NAMES = "|".join(SOURCE_NAMES)
SourceNames = Annotated[str, _told(f"({_NAMES})(, *({_NAMES}))*")]
Threshold = Annotated[float | str | None, BeforeValidator(threshold), _told(r"(off|-?\d+(\.\d+)?|q(0(\.\d+)?|1))")]
Model = Annotated[str, BeforeValidator(model_spec), _told(f"({'|'.join(PROVIDERS)})/[^@]+(@https?://.+)?")]
_REWARD = f"({'|'.join(dict.fromkeys([*PROVIDERS, *SCORERS]))})/[^@,]+(@https?://[^,]+)?"
Rewards = Annotated[str, BeforeValidator(reward_specs), _told(f"{_REWARD}(, *{_REWARD})*")]
Folder = Annotated[str, AfterValidator(folder)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
