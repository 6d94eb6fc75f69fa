"""The prices that a run's models have, and those that are unknown."""

from typing import Any

from pipeline import rewards
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig, PolicySettings, ReviserSettings, RewardSettings
from pipeline.models.prices import price_for, priced
from pipeline.run import record
from pipeline.run.probe import remote_roles

_Settings = PolicySettings | ReviserSettings | RewardSettings


def prices(config: CurationConfig) -> list[dict[str, Any]]:
    """For each language model at a provider: role, model, mode, US dollars per million tokens, and where they come from."""
    known = [priced(settings, spec, role) for role, spec, settings in _callers(config)]
    return [one for one in known if one]


def described(config: CurationConfig) -> dict[str, str]:
    """The prices and the probes, a line each."""
    lines = [
        f"{one['role']} ${one['input']:g} in, ${one['output']:g} out per million tokens ({one['from']})"
        if "input" in one
        else f"{one['role']} unknown"
        for one in prices(config)
    ]
    roles = [f"{role.name} {role.settings.model}" for role in remote_roles(config)]
    probes = f"a small call before the first row to each of {', '.join(roles)}" if roles else "none"
    return {"prices": "; ".join(lines) or "no model that costs anything", "probes": probes}


def unpriced(config: CurationConfig) -> list[str]:
    """Models without a known price: those of this run, and those that earlier runs in the folder called while it had none."""
    now = [str(spec) for _, spec, settings in _callers(config) if price_for(settings, spec) is None]
    return list(dict.fromkeys([*record.recall(config.out).get("unpriced", []), *now]))


def _callers(config: CurationConfig) -> list[tuple[str, ModelSpec, _Settings]]:
    callers: list[tuple[str, _Settings]] = []
    if config.needs_generation:
        callers += [("policy", config.policy), ("reviser", config.reviser)]
    if config.needs_rewards:
        callers += [("reward", judge) for judge in rewards.judge_settings(config.reward)]
    if config.judge:
        callers += [("judge", config.judge)]
    return [(role, ModelSpec.parse(settings.model), settings) for role, settings in callers]
