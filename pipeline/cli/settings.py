"""`figa settings [PREFIX]`: every setting with its type, default and meaning.

Settings come from `--config FILE.yaml`, from the environment (FIGA_REVISER__MAX_TOKENS=800), and from `--set KEY=VALUE` and
flags, each before those named earlier here. Those marked * say how a run is executed and change no data.
"""

from __future__ import annotations

import argparse
import json

from pipeline.cli.arguments import add_json

INTERRUPTED = "nothing was changed"
EPILOG = """\
examples:
  figa settings reviser
  figa settings --json-schema > settings.schema.json
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only settings whose name begins so")
    p.add_argument("--json-schema", action="store_true", help="print the JSON schema of a configuration file")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.config.loading import listed_settings
    from pipeline.config.settings import CurationConfig
    from pipeline.errors import UsageError

    if arguments.json_schema:
        print(json.dumps(CurationConfig.model_json_schema(), indent=1, ensure_ascii=False))
        return 0
    settings = [one for one in listed_settings() if one["name"].startswith(arguments.prefix)]
    if not settings:
        raise UsageError(
            f"no setting begins with {arguments.prefix!r}; sections are {', '.join(CurationConfig.model_fields)}"
        )
    if arguments.json:
        print(json.dumps(settings, ensure_ascii=False))
        return 0
    for one in settings:
        mark = " *" if one["operational"] else ""
        print(f"{one['name']}{mark}  ({one['type']}, default {one['default']})\n    {one['description']}")
    return 0
