"""What the sections of the configuration consist of: their base classes, and the kinds of values that settings have."""

import json
import math
import re
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from pipeline.config.addresses import conceal, conceal_parameters
from pipeline.config.model_names import PROVIDERS, SCORERS, ModelSpec
from pipeline.errors import ConfigError
from pipeline.storage.location import location

# The names of the adapters in `pipeline.sources`.
SOURCE_NAMES = (
    "hh-rlhf sharegpt shp synthetic-gptj openorca alpaca ultrafeedback spa helpsteer3-edit aligner clair demo jsonl parquet"
).split()
# Marks a field that changes how a run is executed, not what it produces.
Operational = object()


def threshold(value: object) -> object:
    """`0.3` is a score, `q0.3` the 0.3 quantile of this run's scores, `null` or `off` no threshold."""
    # YAML reads a bare `off` as False.
    if value is None or value is False or value == "off":
        return None
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


def threshold_or_auto(value: object) -> object:
    return value if value == "auto" else threshold(value)


def model_spec(value: object) -> str:
    try:
        spec = ModelSpec.parse(str(value))
        return str(replace(spec, base_url=spec.base_url and conceal(spec.base_url)))
    except ConfigError as error:
        raise ValueError(str(error)) from None


def judge_spec(value: object) -> str:
    # YAML reads a bare `off` as False.
    if value is None or value is False or value == "off":
        return "off"
    return "auto" if value == "auto" else model_spec(value)


def reward_specs(value: object) -> str:
    """One model, or several with commas: the members of an ensemble."""
    return ",".join(model_spec(part) for part in str(value).split(","))


def variables(value: object) -> object:
    """Names of environment variables, with commas for several models. No message repeats the value: it may be a key itself."""
    names = [name.strip() for name in str(value).split(",")] if value is not None else []
    if not all(re.fullmatch("[A-Z_][A-Z0-9_]*|", name) for name in names):
        raise ValueError("expected the name of an environment variable in capitals, never a key itself")
    return ",".join(names) or None


def concealed_inputs(value: str) -> str:
    """Files and addresses with commas; an address's own query may have some too."""
    if not value.strip():
        raise ValueError(
            "expected a file, folder, glob, URL or Hub id, got an empty text; leave it out for the source's own"
        )
    return ",".join(conceal(part) for part in re.split(r",(?=\s*(?:[a-z0-9]+://|[^,=&?]*(?:,|$)))", value))


def folder(value: str) -> str:
    try:
        location(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value


def json_only(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise ValueError("expected values of JSON: text, finite numbers, true, false, null, lists, mappings") from None
    return value


def split_at_commas(value: object) -> object:
    """`0.7,0.3` or `en, de`, as typed on a command line, is a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def per_million(value: object) -> object:
    """`0.15,0.6`: US dollars per million tokens of input and output."""
    parts = split_at_commas(value)
    if value is None or value == "":
        return None
    try:
        prices = (
            [float(part) for part in parts if not isinstance(part, bool)] if isinstance(parts, list | tuple) else []
        )
    except (TypeError, ValueError):
        prices = []
    if len(prices) != 2 or not all(0 <= price < math.inf for price in prices):
        raise ValueError(f"expected US dollars per million tokens of input and output, such as 0.15,0.6; got {value!r}")
    return tuple(prices)


def pattern(expression: str) -> Any:
    """A pattern for the JSON schema, so that Prefect's form refuses bad values and names the field."""
    return Field(json_schema_extra={"pattern": f"^{expression}$"})


_NAMES = "|".join(SOURCE_NAMES)
_REWARD = f"({'|'.join(dict.fromkeys([*PROVIDERS, *SCORERS]))})/[^,]+"
SourceNames = Annotated[str, pattern(f"({_NAMES})(, *({_NAMES}))*")]
Threshold = Annotated[float | str | None, BeforeValidator(threshold), pattern(r"(off|-?\d+(\.\d+)?|q(0(\.\d+)?|1))")]
AutoThreshold = Annotated[
    float | str | None, BeforeValidator(threshold_or_auto), pattern(r"(auto|off|-?\d+(\.\d+)?|q(0(\.\d+)?|1))")
]
Model = Annotated[str, BeforeValidator(model_spec), pattern(f"({'|'.join(PROVIDERS)})/.+")]
Judge = Annotated[str, BeforeValidator(judge_spec), pattern(f"(auto|off|({'|'.join(PROVIDERS)})/.+)")]
Rewards = Annotated[str, BeforeValidator(reward_specs), pattern(f"{_REWARD}(, *{_REWARD})*")]
Variables = Annotated[str | None, BeforeValidator(variables), pattern(r"[A-Z_][A-Z0-9_]*(,([A-Z_][A-Z0-9_]*)?)*")]
Inputs = Annotated[str, AfterValidator(concealed_inputs)]
Folder = Annotated[str, AfterValidator(folder)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Published as float32, and summed.
Weight = Annotated[float, Field(ge=0, le=1e30)]
Rows = Annotated[int, Field(ge=1, le=2**63 - 1)]
Temperature = Annotated[float | None, Field(ge=0, le=2)]
Effort = Annotated[str, StringConstraints(pattern="^[a-z]{1,16}$")]
Share = Annotated[float | None, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Json = Annotated[dict[str, Any], BeforeValidator(json_only)]
Parameters = Annotated[Json, AfterValidator(conceal_parameters)]
PerMillion = Annotated[tuple[float, float] | None, BeforeValidator(per_million)]
Words = Annotated[tuple[str, ...], BeforeValidator(split_at_commas)]
Unsupported = Annotated[
    tuple[Literal["tools", "images", "audio", "videos", "other"], ...], BeforeValidator(split_at_commas)
]
Numbers = Annotated[tuple[Finite, ...], BeforeValidator(split_at_commas)]
Positives = Annotated[tuple[Positive, ...], BeforeValidator(split_at_commas)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: object, info: ValidationInfo) -> object:
        """Settings are stored in UTF-8, and others read them. `yes` is no number."""
        kind = cls.model_fields[info.field_name or ""].annotation
        # Of Annotated[int, …], the int.
        kinds = {getattr(one, "__origin__", one) for one in (kind, *get_args(kind))}
        if isinstance(value, bool) and kinds & {int, float} and not kinds & {bool, str}:
            raise ValueError(f"expected a number, got {value}")
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and ("\0" in text or text.encode("utf-8", "ignore").decode() != text):
                raise ValueError("expected text without NUL and without characters that UTF-8 doesn't have")
            if isinstance(text, str) and re.search(r"://[^\s/?#'\"]*@", text):
                raise ValueError("an address must not hold a password: keys live in the environment alone")
        return value

    def data_settings(self) -> dict[str, Any]:
        """The settings that change the data, ready for a digest."""
        keep = {name for name, field in type(self).model_fields.items() if Operational not in field.metadata}
        return self.model_dump(mode="json", include=keep)


# What `extra` may not have, since a call's most is reserved by it, in lower case without - and _; and what to do instead.
_FORBIDDEN = {
    "maxtokens maxcompletiontokens maxoutputtokens maxnewtokens maxtokenstosample maxlength numpredict": "set {}.max_tokens",
    "n bestof candidatecount numreturnsequences numcompletions usebeamsearch beamwidth numbeams": "set policy.samples or "
    "reviser.candidates, each of which is a call",
    "model models route fallbacks deployment engine": "set {}.model",
    "messages system prompt input contents suffix echo prediction": "set policy.system, or the folders of prompts, "
    "reviser.prompts and reward.prompts",
    "stream streamoptions": "leave it out: answers are read whole",
    "tools toolchoice functions functioncall paralleltoolcalls mcpservers container plugins websearch websearchoptions "
    "searchparameters enablesearch modalities audio": "leave it out: answers are texts, and tools are billed beside them",
}
_INSTEAD = {name: advice for names, advice in _FORBIDDEN.items() for name in names.split()}
_NESTED = ("extrabody", "options", "parameters", "generationconfig")


def forbidden_parameter(extra: dict[str, Any]) -> tuple[str, str] | None:
    """The first parameter of `extra` that changes what a call may cost, and what to do instead, {} for the section's name."""
    for name, value in extra.items():
        # Some servers read names in any case.
        plain = name.casefold().replace("_", "").replace("-", "")
        if plain in _INSTEAD:
            return name, _INSTEAD[plain]
        if plain in _NESTED and isinstance(value, dict) and (found := forbidden_parameter(value)):
            return f"{name}.{found[0]}", found[1]
    return None


class Calls(Section):
    """How a language model is called."""

    concurrency: Annotated[int, Operational] = Field(16, ge=1, le=1024, description="Calls at a time, at most")
    timeout_s: Annotated[Positive, Operational] = Field(120.0, description="Seconds until a call is abandoned")
    attempts: Annotated[int, Operational] = Field(6, ge=1, le=50, description="Tries of one call, the first included")
    rpm: Annotated[Positive | None, Operational] = Field(
        None, description="Requests per minute, at most; default: as the server allows"
    )
    tpm: Annotated[Positive | None, Operational] = Field(None, description="Tokens per minute, prompts and answers")
    mode: Annotated[Literal["live", "batch"], Operational] = Field(
        "live", description="batch: the provider's batch API, at half the price, with answers within a day"
    )
    batch_poll_s: Annotated[Positive, Operational] = Field(30.0, description="Seconds between two polls of a batch")
    batch_quiet_s: Annotated[Positive, Operational] = Field(
        5.0, description="A batch is sent when no further request came for so many seconds"
    )
    api_key_env: Annotated[Variables, Operational] = Field(
        None, description="Environment variable with the key for the address in model; default: none is sent to it"
    )
    price: Annotated[PerMillion, Operational] = Field(
        None,
        description="US dollars per million tokens: input,output; 0,0 for a server of your own; default: as listed",
    )
    extra: Parameters = Field({}, description="Further request parameters that this server understands")
    reasoning_effort: Effort | None = Field(
        None, description="How much the model thinks: none, minimal, low, medium, high, …; default: not sent, its own"
    )
    reasoning_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens for thoughts, on top of max_tokens: their sum is the limit that is sent and reserved; a whole "
        "answer that needs less thought may be longer. Default: 0, and 8192 once an answer shows that the model thinks",
    )

    @field_validator("extra")
    @classmethod
    def _reservable(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if found := forbidden_parameter(extra):
            section = cls.__name__.removesuffix("Settings").lower()
            raise ValueError(f"{found[0]} would change what a call may cost; {found[1].format(section)}")
        return extra
