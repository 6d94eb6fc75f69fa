"""Every setting of a run, as one frozen model: `CurationConfig`. `loading.py` reads its values.

Fields marked `Operational` say how a run is executed, not what it produces: they are in no digest and re-run nothing.
"""

import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.values import (
    AutoThreshold,
    Calls,
    Finite,
    Folder,
    Inputs,
    Json,
    Judge,
    Model,
    Numbers,
    Operational,
    Parameters,
    Positives,
    Rewards,
    Rows,
    Section,
    Seed,
    Share,
    SourceNames,
    Temperature,
    Threshold,
    Unsupported,
    Variables,
    Weight,
    Words,
)
from pipeline.storage.location import location

REASONS = ("lack_of_detail", "inaccuracy", "structure", "other")
Signal = Literal["levenshtein", "bag_of_words", "reward_weighted", "constant"]
Granularity = Literal["token", "word", "phrase"]


class SourceSettings(Section):
    """Where queries X and references Y come from."""

    name: SourceNames = Field("hh-rlhf", description="Adapter, or several with commas: hh-rlhf,openorca")
    input: Inputs | None = Field(
        None,
        description="File, folder, glob, URL or Hub id (owner/name[@revision]); several sources: one each with commas, "
        "empty for a source's own; default: the adapter's own data set",
    )
    enters_at: Literal["auto", "sample", "score", "filter"] = Field(
        "auto",
        description="sample: answers are written; filter: pre-made pairs; score: these with rewards; auto: by source",
    )
    split: str | None = Field(None, description="Split to read, where the source has several")
    revision: str | None = Field(None, description="Commit of the Hub data set; default: the newest, recorded")
    fields: dict[str, str] | None = Field(None, description="Field mapping of generic sources, e.g. prompt: question")
    keep: Words = Field((), description="Source columns to publish, as JSON in the column extra, e.g. domain,feedback")
    ignore: Unsupported = Field((), description="Left out, else a reject: tools, images, audio, videos, other")
    mix: Positives | None = Field(None, description="Shares of several sources, e.g. 0.7,0.3; default: equal")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Draws which of several sources gives the next row")
    limit: Annotated[Rows | None, Operational] = Field(None, description="Rows; default: all, local policy: 36")
    target: Annotated[Rows | None, Operational] = Field(None, description="Read on until so many pairs are published")
    shard_rows: int = Field(512, ge=1, le=1_000_000, description="Rows per shard; doubles every 128 shards")
    require_full: Annotated[bool, Operational] = Field(False, description="Never fall back to the bundled sample")
    # Curation, before money is spent. What it rejects is in the funnel and, with evidence, in the reject ledger.
    min_query_chars: int = Field(1, ge=0, description="Reject queries (all messages together) shorter than this")
    max_query_chars: int | None = Field(100_000, ge=1, description="... and longer than this")
    min_reference_chars: int = Field(1, ge=0, description="Reject references shorter than this")
    max_reference_chars: int | None = Field(100_000, ge=1, description="... and longer than this")
    languages: Words = Field((), description="Keep only queries in these languages, e.g. en,de; extra curation")
    near_duplicates: float | None = Field(None, gt=0, le=1, description="Reject queries so similar, e.g. 0.8 (Jaccard)")
    decontaminate: Words = Field((), description="Files of evaluation sets; rows that share an n-gram are rejected")
    decontaminate_words: int = Field(13, ge=1, le=100, description="Words of that n-gram")
    plugins: Words = Field((), description="module:function, of (messages, reference): why to reject, or None")


class PolicySettings(Calls):
    """The SFT model π that answers the queries (Ŷ)."""

    model: Model = Field("local/qwen2.5-coder-1.5b-instruct", description="provider/model[@base_url]")
    system: str | None = Field(
        None, description="System prompt for queries without one; default: an embedded model's own; empty: none"
    )
    temperature: Temperature = Field(0.7, description="Randomness; null: not sent, for models that refuse it")
    top_p: float | None = Field(None, gt=0, le=1, description="Default: the server's own")
    max_tokens: int = Field(192, ge=1, description="Longer answers are rejected as truncated")
    samples: int = Field(1, ge=1, le=1024, description="Answers per query")
    pick: Literal["first", "worst", "best", "median", "all"] = Field(
        "first", description="Which answer to a query goes on, by its reward; the others are rejected: not_picked"
    )
    seed: Seed = Field(0, description="Each row's own seed is derived from it")
    logprobs: bool = Field(False, description="Ask for the answers' log-probs; published as initial_logprobs")


class RewardSettings(Calls):
    """The reward model R; those of `Calls` matter to judges and servers only."""

    model: Rewards = Field(
        "local/reward-head",
        description="local/reward-head; hf/ORG/NAME (torch); vllm/NAME@URL, openrlhf/NAME@URL, http/NAME@URL; as judge "
        "openai/, anthropic/ or local/NAME. Several with commas are an ensemble",
    )
    combine: Literal["mean", "min", "worst"] = Field("mean", description="Several; worst: mean − worst_k × deviation")
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
    request: Parameters | None = Field(
        None, description="http/: the body; $texts $queries $answers $conversations (or one: $text …) are put in"
    )
    scores: str | None = Field(None, description="http/: where the response has the scores, e.g. results.*.score")
    index: str | None = Field(None, description="http/: where it has a score's item number, e.g. results.*.index")
    # openai/, anthropic/, local/NAME as judge
    judge: Literal["pointwise", "pairwise"] = Field(
        "pointwise", description="pointwise: a mark for one answer; pairwise: it or the reference, in both orders"
    )
    prompts: str | None = Field(None, description="Folder with judge_pointwise.md, judge_pairwise.md … of your own")
    logprobs: bool = Field(True, description="Judges: expected mark by token probabilities; false: the written mark")
    temperature: Temperature = Field(0.0, description="Judges; null: not sent")
    max_tokens: int = Field(16, ge=1, description="Tokens of a judgement")
    seed: Seed = Field(0, description="Judges: sent with every call")


class SelectionSettings(Section):
    """Which rows are worth correcting: R(Ŷ) < η1, R(Y) > η2, R(Y) − R(Ŷ) > η3. auto is off if filter.judge=auto judges."""

    eta1: AutoThreshold = Field("auto", description="Upper bound of the initial answer's reward; auto: q0.5")
    eta2: AutoThreshold = Field("auto", description="Lower bound of the reference's reward; auto: q0.3")
    eta3: Threshold = Field(0.0, description="Lower bound of the difference")


class ReviserSettings(Calls):
    """The stronger model that corrects Ŷ into Ỹ."""

    model: Model = Field("local/qwen2.5-coder-1.5b-instruct", description="provider/model[@base_url]")
    style: Literal["auto", "rewrite", "edits", "branches"] = Field(
        "auto", description="rewrite: whole answers; edits: only changes; auto: branches if local, else rewrite"
    )
    structured: bool = Field(True, description="Request JSON by schema; false: for models that refuse one")
    prompts: str | None = Field(None, description="Folder of prompts to use in place of the shipped ones")
    temperature: Temperature = Field(0.0, description="Randomness; null: not sent, for models that refuse it")
    max_tokens: int = Field(512, ge=1, description="Longer revisions are rejected as truncated")
    candidates: int = Field(1, ge=1, le=64, description="Revisions per row; the best that the filter accepts stays")
    max_repetition: Share = Field(
        0.5, description="Answers that loop are not revised: share of repeated runs of four words"
    )
    seed: Seed = Field(0, description="Each row's own seed is derived from it")

    @model_validator(mode="after")
    def _differing(self) -> Self:
        if self.candidates > 1 and self.temperature == 0:
            raise ValueError(f"{self.candidates} candidates need a temperature above 0, else they are all the same")
        return self


class FilterSettings(Section):
    """Which revisions are kept."""

    min_distance: float = Field(0.0, ge=0, le=1, description="Normalised token edit distance must exceed this")
    max_distance: float = Field(0.8, gt=0, le=1, description="... and must not exceed this")
    min_reward_gain: Finite | None = Field(
        None, description="Least R(Ỹ) − R(Ŷ); default: 0, off if auto judges, or for pairs"
    )
    min_rouge_gain: float | None = Field(None, ge=-1, le=1, description="Least gain in ROUGE-L to Y; default: off")
    min_reference_distance: Share = Field(
        None, description="Least word edit distance from the reference, if the draft's is > 0.5; default: 0.2, pairs: 0"
    )
    reject_contradictions: bool | None = Field(
        None, description='Reject "Yes, you can" where the reference says "No"; default: not for pre-made pairs'
    )
    judge: Judge = Field("auto", description="openai/, anthropic/, local/NAME: compares both; auto: a local reviser")
    judge_api_key_env: Annotated[Variables, Operational] = Field(None, description="As policy.api_key_env")
    min_judge_gain: float = Field(0.02, ge=-1, le=1, description="Least preference of the judge for the revision")

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.min_distance >= self.max_distance:
            raise ValueError(f"min_distance {self.min_distance} must be below max_distance {self.max_distance}")
        return self


class LabelSettings(Section):
    """Tokenisation and token weights."""

    tokenizer: str = Field("policy", description="policy (the local policy's own), a Hub id, or a folder")
    template: Literal["chat", "alpaca", "plain"] = Field("chat", description="How a query becomes a prompt")
    template_options: Json = Field(
        {}, description="Variables of the chat template, e.g. enable_thinking: false; give them to the trainer"
    )
    date: datetime.date | None = Field(None, description="The day for chat templates that write the date")
    system: str | None = Field(
        None, description="System prompt for queries that have none; default: policy.system; empty: none"
    )
    alpha: Weight = Field(1.0, description="Weight of tokens that the revision adds")
    beta: Weight = Field(0.5, description="Weight against tokens that it removes")
    gamma: Weight = Field(0.0, description="Weight of tokens that it keeps")
    eos_weight: Weight | None = Field(None, description="Weight of the EOS of the revised answer; default: alpha")
    gate: Finite = Field(0.6, ge=0, description="Confidence gate of the loss, in nats; recorded for the trainer")
    signal: Signal = Field("levenshtein", description="What makes a token good or bad")
    granularity: Granularity = Field("token", description="token; word or phrase: an edit marks all of it")
    phrase_gap: int = Field(1, ge=0, description="granularity phrase: edits at most so many kept words apart join")
    max_length: int = Field(2048, ge=8, description="Tokens of a sequence, at most; none is ever cut")
    overlong: Literal["drop", "mark"] = Field("drop", description="Longer pairs are rejected, or kept whole and marked")
    reasoning: Literal["drop", "context"] = Field("drop", description="Thoughts: left out, or as the end of the prompt")


class OutputSettings(Section):
    dir: Folder | None = Field(None, description="Output folder, also s3://bucket/prefix; default out/SOURCE")
    rows_per_file: int = Field(50_000, ge=1, description="Rows in a published Parquet file, at most")


class RunSettings(Section):
    """How the run is executed; nothing here changes the data."""

    workers: int = Field(2, ge=1, le=256, description="Shards in work at a time")
    runner: Literal["threads", "dask", "ray"] = Field("threads", description="Who runs shards; dask, ray: by Prefect")
    runner_address: str | None = Field(None, description="A standing Dask or Ray cluster; default: a local one")
    journal: Literal["auto", "shared", "own"] = Field("auto", description="For all workers of a cluster, or one each")
    artifacts: Literal["texts", "counts"] = Field("texts", description="Prefect's: with texts of five pairs, or not")
    budget_usd: Finite | None = Field(None, ge=0, description="Stop before more than this is spent in this folder")


class CurationConfig(Section):
    """All settings of one run, the flow's only parameter."""

    source: SourceSettings = SourceSettings()
    policy: PolicySettings = PolicySettings()
    reward: RewardSettings = RewardSettings()
    selection: SelectionSettings = SelectionSettings()
    reviser: ReviserSettings = ReviserSettings()
    filter: FilterSettings = FilterSettings()
    labels: LabelSettings = LabelSettings()
    output: OutputSettings = OutputSettings()
    run: RunSettings = RunSettings()

    @property
    def needs_generation(self) -> bool:
        """Whether a policy and a reviser write answers; False for pre-made pairs, which enter later."""
        return self.source.enters_at not in ("score", "filter")

    @property
    def needs_rewards(self) -> bool:
        """Whether the reward model is used. Pre-made pairs without it have null rewards."""
        gated = self.filter.min_reward_gain is not None or self.labels.signal == "reward_weighted"
        return self.needs_generation or self.source.enters_at == "score" or gated

    @property
    def judges_itself(self) -> bool:
        """Whether an embedded reviser judges by default; it is right more often than the embedded reward."""
        return self.filter.judge == "auto" and self.judge is not None

    @property
    def judge(self) -> RewardSettings | None:
        """How the filter's judge is called: as `reward` says, a local one never by batch. None without a judge."""
        model, reviser = self.filter.judge, self.reviser.model
        if model == "auto" and self.needs_generation and reviser.startswith("local/"):
            model = reviser
        if model in ("auto", "off"):
            return None
        mode = "live" if model.startswith("local/") else self.reward.mode
        update = {"model": model, "mode": mode, "api_key_env": self.filter.judge_api_key_env}
        return self.reward.model_copy(update=update)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this run, the source first."""
        from pipeline.schema import STAGES

        scored = ("score",) if self.needs_rewards else ()
        return STAGES if self.needs_generation else ("source", *scored, "filter", "label")

    @property
    def batched(self) -> bool:
        """Whether any model is called through a batch API."""
        return "batch" in (self.policy.mode, self.reviser.mode, self.reward.mode)

    @property
    def shards_at_a_time(self) -> int:
        """Threads for shards. In batch mode many, so that all rows meet in one batch; most of them only wait."""
        return max(self.run.workers, 256) if self.batched else self.run.workers

    @property
    def out(self) -> Path:
        return location(self.output.dir or Path("out") / self.source.name.replace(",", "+"))
