"""The settings of the reward model: of each kind that `pipeline/rewards/` knows."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.values import Calls, Finite, Json, Numbers, Operational, Positives, Rewards, Seed, Temperature


class RewardSettings(Calls):
    """The reward model R; those of `Calls` matter to judges and servers only."""

    model: Rewards = Field(
        "local/reward-head",
        description="local/reward-head; hf/ORG/NAME (torch); vllm/NAME@URL, openrlhf/NAME@URL, http/NAME@URL; as judge "
        "openai/, anthropic/ or local/NAME. Several with commas are an ensemble",
    )
    combine: Literal["mean", "min", "worst"] = Field(
        "mean", description="Several models' scores as one; worst: mean − worst_k × standard deviation"
    )
    worst_k: Finite = Field(1.0, ge=0, description="Deviations that combine=worst subtracts")
    centres: Numbers = Field((), description="Several models: subtracted from their scores, see `figa rewards check`")
    spreads: Positives = Field((), description="... and divides them, so that they are of one scale")
    # hf/
    max_length: int = Field(1024, ge=8, description="Tokens of query and answer that an hf/ model reads")
    batch_size: Annotated[int, Operational] = Field(16, ge=1, description="Answers scored at a time, or in a request")
    revision: str | None = Field(None, description="hf/: commit, tag or branch; default: the newest, recorded")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="hf/: the model's numbers; shorter ones are faster on a GPU, and scores coarser"
    )
    device: Annotated[str, Operational] = Field("auto", description="hf/: cpu, cuda, cuda:1, mps; auto: a GPU if any")
    trust_remote_code: bool = Field(False, description="hf/: run code that comes with the model (ArmoRM and the like)")
    label: int | None = Field(None, ge=0, description="Which output is the score, of models that have several")
    # vllm/, openrlhf/, http/
    endpoint: Literal["classify", "score", "pooling"] = Field("classify", description="vllm/: which of its interfaces")
    tokenizer: str | None = Field(None, description="Folder or Hub id; its chat template renders texts for servers")
    request: Json | None = Field(
        None, description="http/: the body; $texts $queries $answers $conversations (or one: $text …) are put in"
    )
    scores: str | None = Field(None, description="http/: where the response has the scores, e.g. results.*.score")
    index: str | None = Field(
        None, description="http/: where it has the number of a score's item, e.g. results.*.index"
    )
    # openai/, anthropic/, local/NAME as judge
    judge: Literal["pointwise", "pairwise"] = Field(
        "pointwise", description="pointwise: a mark for one answer; pairwise: it or the reference, in both orders"
    )
    prompts: str | None = Field(None, description="Folder with judge_pointwise.md and judge_pairwise.md of your own")
    logprobs: bool = Field(True, description="Judges: expected mark by token probabilities; false: the written mark")
    temperature: Temperature = Field(0.0, description="Judges; null: not sent")
    max_tokens: int = Field(16, ge=1, description="Tokens of a judgement")
    seed: Seed = Field(0, description="Judges: sent with every call")
