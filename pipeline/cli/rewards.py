"""`figa rewards check --pairs FILE`: how far a reward model can be trusted, by pairs with a known better answer.

Pairs are rows with a better and a worse answer: hh-rlhf's chosen and rejected transcripts, or prompt, chosen and rejected;
--source names another source's format. Intervals are of 95 %.
"""

import argparse
import os
from typing import Any

from pipeline.cli.arguments import add_set, count
from pipeline.cli.console import note

EXAMPLES = (
    "figa rewards check --pairs pairs.jsonl.gz",
    "figa rewards check --model hf/OpenAssistant/reward-model-deberta-v3-large-v2 --pairs pairs.jsonl",
    "figa rewards check --model openai/gpt-4o-mini --set reward.judge=pairwise --pairs pairs.jsonl --budget 1",
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("command", choices=["check"])
    p.add_argument("--pairs", metavar="FILE", help="file, folder, glob, URL or Hub id; default: the bundled sample")
    p.add_argument("--model", metavar="MODEL", help="as in reward.model; default: the embedded head")
    p.add_argument("--source", metavar="NAME", help="format of the pairs, as in figa build; default: by the rows")
    p.add_argument("--limit", type=count, default=1000, metavar="N", help="first N pairs; default 1000; 0: all")
    add_set(p, "a setting, e.g. reward.judge=pairwise")
    p.add_argument("--budget", type=float, metavar="USD", help="most that judges may cost")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline import resources, rewards
    from pipeline.config.loading import load_config
    from pipeline.config.settings import RewardSettings
    from pipeline.models import factory
    from pipeline.models.chat import ChatModel
    from pipeline.models.cost import Budget
    from pipeline.models.journal import Journal
    from pipeline.rewards.check import check, concerns, read_pairs
    from pipeline.run.context import local_file
    from pipeline.storage.location import state_folder

    arguments.pairs = arguments.pairs or str(resources.folder("data") / "hh-rlhf-sample.jsonl")
    guessed = "parquet" if arguments.pairs.endswith(".parquet") else "jsonl"
    flags = {"source.name": arguments.source or guessed, "source.input": arguments.pairs}
    flags |= {"reward.model": arguments.model, "run.budget_usd": arguments.budget}
    config = load_config(None, arguments.set, flags, os.environ)

    def open_judge(settings: RewardSettings) -> ChatModel:
        # The journal is in the user's state folder: the same check again costs nothing.
        budget, journal = Budget(config.run.budget_usd, 0.0), Journal(state_folder() / "checks" / "journal.db")
        return factory.chat_model(settings, journal=journal, budget=budget, local_file=local_file)

    rewards.check_settings(config.reward, config.run.budget_usd)
    pairs, without = read_pairs(config.source, arguments.limit or None, note)
    result = check(rewards.load_reward(config.reward, open_judge), pairs)
    result |= {"rows_without_a_pair": without}
    result["concerns"] = concerns(result)
    if not arguments.json:
        _print(result)
    return 0, result


def _print(result: dict[str, Any]) -> None:
    from pipeline.dataset.facts import counts

    length, order, calibration, scores = (result[name] for name in ("length", "order", "calibration", "scores"))
    known = length["correlation"] is not None
    correlation = f"{length['correlation']:+.2f}" if known else "unknown, as one does not vary"
    rejected = f" ({counts(result['rejected'])})" if result["rejected"] else ""
    lines = [
        ("model", result["name"]),
        ("pairs", f"{result['scored']} scored of {result['pairs']}{rejected}"),
        ("accuracy", f"{_percent(result['accuracy'])}; {result['ties']} ties, which count half"),
        ("length", f"rank correlation of margin and length {correlation}"),
        ("", f"{_percent(length['longer_is_better'])} by length alone"),
        ("", f"{_percent(length['accuracy_when_longer_is_better'])} where the better answer is the longer one"),
        ("", f"{_percent(length['accuracy_when_shorter_is_better'])} where it is the shorter one"),
    ]
    if order and order["prefers_first"] is not None:
        lines += [
            ("order", f"prefers the first reply in {order['prefers_first']:.0%} (50 % is none)"),
            ("", f"says the same in both orders in {order['consistent']:.0%}"),
            ("", f"{_percent(order['accuracy_unswapped'])} if asked in one order only"),
        ]
    if calibration:
        temperature, fitted = calibration["temperature"], calibration["error_fitted"]
        best = f", {fitted:.3f} at {temperature:.3g}" if temperature else ""
        lines.append(("calibration", f"error {calibration['error']:.3f} at temperature 1{best}"))
        for b in calibration["buckets"]:
            sure = f"{b['confidence']:.0%} sure, {b['accuracy']:.0%} right ({b['pairs']} pairs)"
            lines.append(("", f"margin {b['margin']:.3g}: {sure}"))
    if scores["mean"] is not None:
        lines.append(("scores", f"mean {scores['mean']:.4g}, deviation {scores['deviation']:.4g}"))
    lines.append(("speed", f"{result['answers_per_second']:,} answers a second"))
    lines += [("concern", concern) for concern in result["concerns"]]
    for name, text in lines:
        print(f"{name:<13}{text}")


def _percent(share: dict[str, Any]) -> str:
    if share["share"] is None:
        return "no pair"
    return f"{share['share']:.1%} ({share['low']:.1%} to {share['high']:.1%}) of {share['of']}"
