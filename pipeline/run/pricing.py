"""The language models that a run calls, by role; their prices, and which of these are unknown."""

from typing import Any

from pipeline import rewards
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig, PolicySettings, ReviserSettings, RewardSettings
from pipeline.models.prices import price_for, priced
from pipeline.run import record

Settings = PolicySettings | ReviserSettings | RewardSettings


def prices(config: CurationConfig) -> list[dict[str, Any]]:
    """For each language model at a provider: role, model, mode, US dollars per million tokens, and where they come from."""
    return [price for role, spec, settings in callers(config) if (price := priced(settings, spec, role))]


def described(config: CurationConfig) -> dict[str, str]:
    """The prices and the probes, a line each."""
    lines = [
        f"{one['role']} ${one['input']:g} in, ${one['output']:g} out per million tokens ({one['from']})"
        if "input" in one
        else f"{one['role']} unknown"
        for one in prices(config)
    ]
    roles = [f"{role} {settings.model}" for role, spec, settings in callers(config) if spec.provider != "local"]
    probes = f"a small call before the first row to each of {', '.join(roles)}" if roles else "none"
    return {"prices": "; ".join(lines) or "no model that costs anything", "probes": probes}


def unpriced(config: CurationConfig) -> list[str]:
    """Models without a known price: those of this run, and those that earlier runs in the folder called while it had none."""
    now = [str(spec) for _, spec, settings in callers(config) if price_for(settings, spec) is None]
    return list(dict.fromkeys([*record.recall(config.out).get("unpriced", []), *now]))


def callers(config: CurationConfig) -> list[tuple[str, ModelSpec, Settings]]:
    """Role, model and settings of each language model that the run calls; each judge of a reward has the role `reward`."""
    roles: list[tuple[str, Settings]] = []
    if config.needs_generation:
        roles += [("policy", config.policy), ("reviser", config.reviser)]
    if config.needs_rewards:
        roles += [("reward", judge) for judge in rewards.judge_settings(config.reward)]
    if config.judge:
        roles += [("judge", config.judge)]
    return [(role, ModelSpec.parse(settings.model), settings) for role, settings in roles]
