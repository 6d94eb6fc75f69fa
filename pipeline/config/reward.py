"""The settings of the reward model: of each kind that `pipeline/rewards/` knows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.config.sections import Calls
from pipeline.config.values import Finite, Operational, Rewards, comma_list, json_only


class RewardSettings(Calls):
    """The reward model R; how `Calls` are made matters to judges and servers only."""

    model: Rewards = Field(
        "local/reward-head",
        description="local/reward-head; hf/ORG/NAME (torch); vllm/NAME@URL, openrlhf/NAME@URL, http/NAME@URL; as judge "
        "openai/, anthropic/ or local/NAME. Several with commas are an ensemble",
    )
    combine: Literal["mean", "min", "worst"] = Field(
        "mean", description="Several models' scores as one; worst: mean − worst_k × standard deviation"
    )
    worst_k: Finite = Field(1.0, ge=0, description="Deviations that combine=worst takes off")
    centres: Annotated[tuple[Finite, ...], BeforeValidator(comma_list)] = Field(
        (), description="Several models: what to take off each one's scores, see `figa rewards check`"
    )
    spreads: Annotated[tuple[Annotated[Finite, Field(gt=0)], ...], BeforeValidator(comma_list)] = Field(
        (), description="... and what to divide them by, so that they are of one scale"
    )
    # hf/
    max_length: int = Field(1024, ge=8, description="Tokens of query and answer that an hf/ model reads")
    batch_size: Annotated[int, Operational] = Field(16, ge=1, description="Answers scored at a time, or in a request")
    revision: str | None = Field(
        None, description="hf/: commit, tag or branch on the Hub; default: the newest, recorded"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="hf/: numbers of the model; the shorter ones are quicker on a GPU, and scores coarser"
    )
    device: Annotated[str, Operational] = Field("auto", description="hf/: cpu, cuda, cuda:1, mps; auto: a GPU if any")
    trust_remote_code: bool = Field(False, description="hf/: run code that comes with the model (ArmoRM and the like)")
    label: int | None = Field(None, ge=0, description="Which output is the score, of models that have several")
    # vllm/, openrlhf/, http/
    endpoint: Literal["classify", "score", "pooling"] = Field("classify", description="vllm/: which of its interfaces")
    tokenizer: str | None = Field(
        None, description="Folder or Hub id whose chat template writes what servers are sent as text"
    )
    request: Annotated[dict[str, Any] | None, BeforeValidator(json_only)] = Field(
        None, description="http/: the body; $texts $queries $answers $conversations (or one: $text …) are put in"
    )
    scores: str | None = Field(None, description="http/: where the scores are in the answer, e.g. results.*.score")
    index: str | None = Field(None, description="http/: where it says which item a score is of, e.g. results.*.index")
    # openai/, anthropic/, local/NAME as judge
    judge: Literal["pointwise", "pairwise"] = Field(
        "pointwise", description="A mark for one answer, or which is better, it or the reference, asked in both orders"
    )
    prompts: str | None = Field(None, description="Folder with judge_pointwise.md and judge_pairwise.md of your own")
    logprobs: bool = Field(True, description="Judges: expected mark by token probabilities; false: the written mark")
    temperature: float | None = Field(0.0, ge=0, le=2, description="Judges; null: not sent")
    max_tokens: int = Field(16, ge=1, description="Tokens of a judgement")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Judges: sent with every call")
