"""`figa check --source NAME`: check settings, source, tokenizer and keys of a run before it costs anything.

Downloads no model, calls none and writes nothing. What it refuses, `figa build` with the same settings refuses as well.
"""

from __future__ import annotations

import argparse
import json
import sys

from pipeline.cli.arguments import add_json, add_run_settings, run_config
from pipeline.text import visible

HELP_WHEN_BARE = True
INTERRUPTED = "nothing was changed"
EPILOG = """\
examples:
  figa check --source hh-rlhf
  figa check --source jsonl --input q.jsonl --set policy.model=openai/my-model@http://localhost:8000/v1
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_run_settings(p)
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    config = run_config(arguments)
    from pipeline.run.preflight import preflight

    checked = {}
    for what, detail in preflight(config, lambda message: print(f"note: {message}", file=sys.stderr)):
        checked[what] = detail
        print(f"ok  {what:<10} {visible(detail)}", file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps({"ok": True, "checked": checked}, ensure_ascii=False))
    return 0
