"""`figa settings [PREFIX]`: every setting with its type, default and meaning.

Settings come from `--config FILE.yaml`, from the environment (FIGA_REVISER__MAX_TOKENS=800), and from `--set KEY=VALUE` and
flags; a later place overrides an earlier one. Those marked * say how a run is executed and change no data.
"""

import argparse
import json

from pipeline.errors import UsageError

EXAMPLES = ("figa settings reviser", "figa settings --json-schema > settings.schema.json")


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only settings whose name begins so")
    p.add_argument("--json-schema", action="store_true", help="print the JSON schema of a configuration file")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.config.loading import listed_settings
    from pipeline.config.settings import CurationConfig

    if arguments.json_schema:
        schema = CurationConfig.model_json_schema()
        if not arguments.json:
            print(json.dumps(schema, indent=1, ensure_ascii=False))
        return 0, schema
    settings = [setting for setting in listed_settings() if setting["name"].startswith(arguments.prefix)]
    if not settings:
        sections = ", ".join(CurationConfig.model_fields)
        raise UsageError(f"no setting begins with {arguments.prefix!r}; sections are {sections}")
    if not arguments.json:
        for setting in settings:
            mark = " *" if setting["operational"] else ""
            print(f"{setting['name']}{mark}  ({setting['type']}, default {setting['default']})")
            print(f"    {setting['description']}")
    return 0, settings
