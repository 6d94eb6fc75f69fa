"""One small call per role before a run is paid: does the model's server take what this role sends?

Where a word takes a model all of max_tokens, a second call shows whether it thinks.

What it refuses by name is left out or renamed from then on (`models/adaptation.py`). A wrong key, address or model name, an
empty account and a request that is refused whatever is left out end the run here. The call is journalled and paid like any
other, so the same probe is never made twice. Models on this machine are not probed.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pipeline import rewards
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig, PolicySettings, ReviserSettings
from pipeline.errors import ConfigError, ProviderStopped, RowReject
from pipeline.models import event_loop, factory
from pipeline.models.adaptation import describe
from pipeline.models.chat import THOUGHT_TOKENS, ChatModel
from pipeline.models.provider_errors import RUN_AGAIN_LATER, UselessAnswer, reason_of
from pipeline.models.request import ChatRequest
from pipeline.rewards.judge import judge_params
from pipeline.rewards.servers import ServerReward
from pipeline.run.context import Context, local_file
from pipeline.run.pricing import Settings, callers
from pipeline.stages.revise import DIAGNOSIS_FORMAT, style_of
from pipeline.stages.sample import build_request
from pipeline.storage import stage_files
from pipeline.storage.lock import run_lock
from pipeline.text import visible

STAGE = "probe"
_ATTEMPTS = 3
# Failures of the address, where they aren't passing.
_NO_SERVER = {
    "connection_lost": "no server answers there: start it, or correct the address behind the @",
    "html_answer": "a web page answers there, not a model: correct the address; it often ends in /v1",
    "malformed_answer": "what answers there is no model: correct the address; it often ends in /v1",
}


class Role(NamedTuple):
    """A role's settings, and a request as it sends them, with a question that takes a word to answer."""

    name: str
    settings: Settings
    request: ChatRequest

    @property
    def setting(self) -> str:
        return "filter.judge" if self.name == "judge" else f"{self.name}.model"


class Probed(NamedTuple):
    role: Role
    model: ChatModel
    outcome: str


def remote_roles(config: CurationConfig) -> list[Role]:
    """The roles whose models are not on this machine."""
    called = [(name, spec, settings) for name, spec, settings in callers(config) if spec.provider != "local"]
    return [Role(name, settings, _request(spec, settings)) for name, spec, settings in called]


def _request(spec: ModelSpec, settings: Settings) -> ChatRequest:
    if isinstance(settings, PolicySettings):
        row = {"id": "0" * 8, "messages": [{"role": "user", "content": "Reply with the word OK and nothing else."}]}
        return build_request(row, settings, spec)
    if isinstance(settings, ReviserSettings):
        question = 'Reply with this JSON and nothing else: {"reason": "other"}'
        params = factory.request_params(settings, spec, settings.seed)
        if settings.structured and style_of(settings) != "branches":
            params["response_format"] = DIAGNOSIS_FORMAT
    else:
        question, params = "Reply with the number 7 and nothing else.", judge_params(settings)
    return ChatRequest([{"role": "user", "content": question}], settings.max_tokens, params)


def any_rows(work: Path, shards: int) -> bool:
    """Whether any row of the source is to be worked on: without one no model is needed."""
    return any(file and file.rows for file in (stage_files.inspect(work, "source", shard) for shard in range(shards)))


def probe(run: Context, warn: Callable[[str], None]) -> Iterator[Probed]:
    """Call each remote role's model once; yields what became of it, and warns of what is left out from now on.

    Raises ConfigError for a server that can't serve the role, BudgetReached when the call could pass the budget.
    """
    for role in remote_roles(run.config):
        attempts = min(_ATTEMPTS, role.settings.attempts)
        # A batch would take hours.
        settings = role.settings.model_copy(update={"mode": "live", "attempts": attempts})
        model = factory.chat_model(settings, journal=run.journal, budget=run.budget, local_file=local_file)
        outcome = _ask(role, model)
        model.adaptation.save()
        warn_of_changes(model, warn)
        changes = model.adaptation.changes
        yield Probed(role, model, f"{outcome}; {describe(changes)}" if changes else outcome)


def probe_all(config: CurationConfig, warn: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """What `figa check` does: `probe`, and one text for each reward server; yields (role, outcome). Raises CurationError."""
    if remote_roles(config):
        with run_lock(config.out, warn):
            outcomes = list(probe(Context(config), warn))
        for role, _, outcome in outcomes:
            yield role.name, f"{role.settings.model}: {outcome}"
    servers = [
        member for member in rewards.member_settings(config.reward) if rewards.reward_kind(member.model) == "server"
    ]
    for member in servers if config.needs_rewards else []:
        # A server's score needs no language model.
        model = ServerReward(member.model_copy(update={"attempts": min(_ATTEMPTS, member.attempts)}))
        try:
            (score,) = model.score([([{"role": "user", "content": "What is 1 + 1?"}], "2")], [""])
        except ProviderStopped as error:
            raise ConfigError(f"reward.model: {error}") from None
        if isinstance(score, RowReject):
            raise ConfigError(
                f"reward.model: {model.name} gives no score ({score.reason}: {visible(reason_of(score))})"
            )
        yield "reward", f"{model.name}: it scores a short text {score:g}"


def warn_of_changes(model: ChatModel, warn: Callable[[str], None]) -> None:
    """Warn once of what this model's server refused and gets no longer."""
    if changes := model.adaptation.news:
        warn(f"{model.name} refuses some of our parameters; in all calls {describe(changes)}")
        model.adaptation.news = {}


def _ask(role: Role, model: ChatModel) -> str:
    try:
        answer = event_loop.run(model.ask(STAGE, role.request))
        if answer.finish == "length":
            _look_for_thoughts(role, model)
    except UselessAnswer:
        pass
    except ProviderStopped as error:
        if RUN_AGAIN_LATER in str(error):
            raise
        raise ConfigError(f"{role.setting}: {error}") from None
    except RowReject as reject:
        where = factory.address(ModelSpec.parse(role.settings.model))
        status = reject.evidence.get("status")
        said = visible(f"status {status}: {reason_of(reject)}" if status else reason_of(reject))
        if reject.reason in _NO_SERVER:
            raise ConfigError(f"{role.setting}: {where}: {_NO_SERVER[reject.reason]} ({said})") from None
        if status == 404:
            what = "the server knows no such model, or the address is wrong"
            raise ConfigError(f"{role.setting}: {where}: {what} ({said})") from None
        if not reject.retryable:
            raise ConfigError(f"{role.setting}: {where}: the server refuses this role's calls ({said})") from None
        return f"it did not answer now ({said})"
    return "it answers"


def _look_for_thoughts(role: Role, model: ChatModel) -> None:
    """A word took the model more than max_tokens: ask again with room for thoughts, and see whether it has any.

    Thoughts that the prompt opens show only at their end.
    """
    budget, most = model.budget, model.price.most(0, 2 * THOUGHT_TOKENS)
    if (
        model.reasoning_tokens is not None
        or model.room
        or (budget.limit is not None and budget.spent + most > budget.limit)
    ):
        return
    messages = [{**message, "content": f"{message['content']} Be brief."} for message in role.request.messages]
    model.adaptation.thinks = True
    try:
        model.adaptation.thinks = event_loop.run(model.ask(STAGE, replace(role.request, messages=messages))).reasoned
    except UselessAnswer:
        pass
    except RowReject:
        model.adaptation.thinks = False
