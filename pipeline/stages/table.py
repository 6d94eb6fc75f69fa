"""The stages of a run, one record each.

    source ──► sample ──► score ──► select ──► revise ──► filter ──► label      rows with a query and a reference
    source ──► (score) ─────────────────────────────────► filter ──► label      pre-made pairs

A stage's digest is made of its inputs, and `figa status` explains a rerun by short digests of the same ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pyarrow as pa
import rapidfuzz

from pipeline import rewards, schema
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig, FilterSettings
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.models import factory
from pipeline.models.chat import ChatModel, OnProgress
from pipeline.prompts import Prompts
from pipeline.rewards.base import RewardModel
from pipeline.rewards.judge import RevisionJudge
from pipeline.schema import digest
from pipeline.stages import branches
from pipeline.stages.filter import Choose, filter_revisions
from pipeline.stages.label import label
from pipeline.stages.revise import revise, several, style_of
from pipeline.stages.sample import sample
from pipeline.stages.score import score
from pipeline.stages.select import Thresholds, select
from pipeline.storage.stage_files import StageOutput

Inputs = dict[str, Any]
# An input that `figa status` can't determine without loading a model or asking a server.
UNKNOWN = object()


class StageContext(Protocol):
    """What a stage may use: the settings, and what is created from them once per process."""

    config: CurationConfig
    policy: ChatModel
    reviser: ChatModel
    reward: RewardModel | None
    judge: RevisionJudge | None
    prompts: Prompts
    tokenizer: LabelTokenizer
    filter_settings: FilterSettings
    choose: Choose | None
    reward_digest: str | None
    tokenizer_fingerprint: str
    template_refusals: str | None


@dataclass(frozen=True)
class Stage:
    """run: rows of a shard in, rows that go on and rejects out. inputs: everything but the rows that determines this, by name.

    version: raise it when the code gives other results for the same input; files of the old code are then rebuilt.
    """

    name: str
    version: int
    adds: pa.Schema
    run: Callable[[pa.Table, Any, Thresholds, OnProgress], StageOutput]
    inputs: Callable[[Any, Thresholds | None], Inputs]

    def digest(self, inputs: Inputs) -> str:
        """sha256 over the stage, its version, the schema's version and the values of `inputs`."""
        return digest(self.name, self.version, schema.SCHEMA_VERSION, *inputs.values())

    def short_digests(self, inputs: Inputs, content: str) -> dict[str, str]:
        """Short digests by name of `inputs`, of the program, and of the rows' `content`."""
        return short_digests({"input": content, **inputs, "the program": [self.version, schema.SCHEMA_VERSION]})


def short_digests(inputs: Inputs) -> dict[str, str]:
    """The first eight hex digits of each input's digest by its name; a mapping's keys are names of their own.

    >>> short_digests({"reviser": {"max_tokens": 512}, "rapidfuzz": "3.14.6"})
    {'reviser.max_tokens': '924b9660', 'rapidfuzz': '13e255d9'}
    """
    named: Inputs = {}
    for name, value in inputs.items():
        if name == "settings":
            named |= {f"{section}.{key}": part for section, values in value.items() for key, part in values.items()}
        elif isinstance(value, Mapping):
            named |= {f"{name}.{key}": part for key, part in value.items()}
        else:
            named[name] = value
    return {name: digest(value)[:8] for name, value in named.items() if value is not UNKNOWN}


def _run_sample(rows: pa.Table, context: StageContext, _: Thresholds, on_progress: OnProgress) -> StageOutput:
    render = context.tokenizer.render if context.template_refusals else None
    return sample(rows, context.config.policy, context.policy, on_progress, render)


def _sample_inputs(context: StageContext, _: Thresholds | None) -> Inputs:
    policy = context.config.policy
    # How many samples there are is decided by the plan, and which of them is picked by the stage select.
    settings = {name: value for name, value in policy.data_settings().items() if name not in ("samples", "pick")}
    # A setting that was always off.
    if not policy.logprobs:
        del settings["logprobs"]
    refusals = context.template_refusals
    return {
        "policy": settings,
        "the policy's identity": factory.identity(ModelSpec.parse(policy.model)),
        "the policy's system prompt": factory.system_prompt(policy),
        **({"the template's refusals": refusals} if refusals else {}),
    }


def _run_score(rows: pa.Table, context: StageContext, _: Thresholds, on_progress: OnProgress) -> StageOutput:
    return score(rows, cast("RewardModel", context.reward), on_progress)


def _score_inputs(context: StageContext, _: Thresholds | None) -> Inputs:
    # The content of the prompts, not their folder, is in the digest of the model.
    settings = {name: value for name, value in context.config.reward.data_settings().items() if name != "prompts"}
    return {"reward": settings, "the reward model": context.reward_digest}


def _run_select(rows: pa.Table, context: StageContext, thresholds: Thresholds, on_progress: OnProgress) -> StageOutput:
    return select(rows, thresholds, on_progress, context.config.policy.pick)


def _select_inputs(context: StageContext, thresholds: Thresholds | None) -> Inputs:
    policy = context.config.policy
    return {"selection": thresholds, **({"policy.pick": policy.pick} if policy.samples > 1 else {})}


def _run_revise(rows: pa.Table, context: StageContext, _: Thresholds, on_progress: OnProgress) -> StageOutput:
    return revise(rows, context.config.reviser, context.prompts, context.reviser, on_progress, context.choose)


def _revise_inputs(context: StageContext, _: Thresholds | None) -> Inputs:
    reviser = context.config.reviser
    return {
        "reviser": reviser.data_settings() | {"prompts": context.prompts.digest},
        "the reviser's identity": factory.identity(ModelSpec.parse(reviser.model)),
        **({"branches": branches.VERSION} if style_of(reviser) == "branches" else {}),
        # Which of several candidates goes on is decided by the filter's conditions.
        **(_check_inputs(context) | _judge_inputs(context) if several(reviser) else {}),
    }


def _run_filter(rows: pa.Table, context: StageContext, _: Thresholds, on_progress: OnProgress) -> StageOutput:
    settings, reward = context.filter_settings, context.reward
    return filter_revisions(rows, settings, context.tokenizer, reward, on_progress, context.judge)


def _filter_inputs(context: StageContext, _: Thresholds | None) -> Inputs:
    least = {"filter.min_judge_gain": context.config.filter.min_judge_gain} if context.config.judge else {}
    return _check_inputs(context) | _judge_inputs(context) | least


def _judge_inputs(context: StageContext) -> Inputs:
    judge = context.config.judge
    return {"the judge of revisions": rewards.identify_judge(judge)} if judge else {}


def _check_inputs(context: StageContext) -> Inputs:
    """The filter's inputs without its judge."""
    labels, settings = context.config.labels, context.filter_settings.data_settings()
    return {
        "filter": {name: value for name, value in settings.items() if name not in ("judge", "min_judge_gain")},
        "the reward model": context.reward_digest,
        "the tokenizer": context.tokenizer_fingerprint,
        "labels.max_length": labels.max_length,
        "labels.overlong": labels.overlong,
        "labels.reasoning": labels.reasoning,
        "labels.granularity": labels.granularity != "token",
    }


def _run_label(rows: pa.Table, context: StageContext, _: Thresholds, on_progress: OnProgress) -> StageOutput:
    return label(rows, context.config.labels, context.tokenizer.eos_id, on_progress)


def _label_inputs(context: StageContext, _: Thresholds | None) -> Inputs:
    return {"labels": context.config.labels.data_settings(), "rapidfuzz": rapidfuzz.__version__}


STAGES = (
    Stage("sample", 2, schema.SAMPLE, _run_sample, _sample_inputs),
    Stage("score", 1, schema.SCORE, _run_score, _score_inputs),
    Stage("select", 1, schema.SELECT, _run_select, _select_inputs),
    Stage("revise", 4, schema.REVISE, _run_revise, _revise_inputs),
    Stage("filter", 3, schema.FILTER, _run_filter, _filter_inputs),
    Stage("label", 2, schema.LABEL, _run_label, _label_inputs),
)
BY_NAME = {stage.name: stage for stage in STAGES}
