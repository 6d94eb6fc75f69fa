"""What the sections of the configuration have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.config.values import Operational, json_only


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def data_settings(self) -> dict[str, Any]:
        """The settings that change the data, ready for a digest."""
        keep = {name for name, field in type(self).model_fields.items() if Operational not in field.metadata}
        return self.model_dump(mode="json", include=keep)


class Calls(Section):
    """How a language model is called."""

    concurrency: Annotated[int, Operational] = Field(16, ge=1, le=1024, description="Calls at a time, at most")
    timeout_s: Annotated[float, Operational] = Field(
        120.0, gt=0, allow_inf_nan=False, description="Seconds until a call is given up"
    )
    attempts: Annotated[int, Operational] = Field(6, ge=1, le=50, description="Tries of one call, the first included")
    rpm: Annotated[float | None, Operational] = Field(
        None, gt=0, allow_inf_nan=False, description="Requests a minute, at most; default: as the server allows"
    )
    tpm: Annotated[float | None, Operational] = Field(
        None, gt=0, allow_inf_nan=False, description="Tokens a minute, prompts and answers, at most"
    )
    mode: Annotated[Literal["live", "batch"], Operational] = Field(
        "live", description="batch: the provider's batch API, at half the price, with answers within a day"
    )
    batch_poll_s: Annotated[float, Operational] = Field(
        30.0, gt=0, allow_inf_nan=False, description="Seconds between two looks at a batch"
    )
    batch_quiet_s: Annotated[float, Operational] = Field(
        5.0, gt=0, allow_inf_nan=False, description="A batch is sent when no further request came for so many seconds"
    )
    extra: Annotated[dict[str, Any], BeforeValidator(json_only)] = Field(
        default_factory=dict, description="Further request parameters that this server understands"
    )
