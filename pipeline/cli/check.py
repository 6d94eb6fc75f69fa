"""`figa check --source NAME`: check settings, source, tokenizer, prompts, keys and models of a run before it is paid.

Downloads no model. Each remote model gets one small call, which the run with the same settings finds in its journal in --out;
without remote models nothing is written. What it refuses, `figa build` with the same settings refuses as well.
"""

import argparse

from pipeline.cli.arguments import add_run_settings, run_config
from pipeline.cli.console import note
from pipeline.text import visible

HELP_WHEN_BARE = True
EXAMPLES = (
    "figa check --source hh-rlhf",
    "figa check --source jsonl --input q.jsonl --set policy.model=openai/my-model@http://localhost:8000/v1",
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_run_settings(p)


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    config = run_config(arguments)
    from pipeline.run.estimate import preflight

    checked = {}
    for what, detail in preflight(config, note):
        checked[what] = detail
        print(f"ok  {what:<10} {visible(detail)}")
    return 0, {"ok": True, "checked": checked}
