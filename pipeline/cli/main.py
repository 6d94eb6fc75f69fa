"""`figa COMMAND`: finds the command's file, parses, runs it, and turns its ending into an exit code.

A command is a module beside this one with `add_arguments(parser)` and `run(arguments) -> exit code`. Its docstring is its
help; EPILOG has examples and exit codes; INTERRUPTED is what the user reads after Ctrl-C; HELP_WHEN_BARE prints
the help where no argument is given. The modules import nothing heavy.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from pipeline import __version__
from pipeline.cli.interrupts import exit_code_of
from pipeline.cli.streams import take_any_text

COMMANDS = (
    "build check settings show status report verify relabel export merge compare calibrate rewards train push cancel"
).split()
_EXIT_CODES = "exit codes: 0 done · 1 failed · 2 bad usage, setting or input · 130 interrupted · 143 terminated\n"


class Parser(argparse.ArgumentParser):
    """argparse's parser; a flag that it doesn't know gets the nearest one that it does."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        known = [flag for flag in self._option_string_actions if flag.startswith("--")]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, 1) if unknown else []
        self.exit(2, f"error: {message}{f'; did you mean {near[0]}?' if near else ''}\nhelp: {self.prog} --help\n")


def parser_of(name: str) -> Parser:
    command = import_module(f"pipeline.cli.{name}")
    first, _, rest = (command.__doc__ or "").partition("\n")
    epilog: str = getattr(command, "EPILOG", "")
    parser = Parser(
        prog=f"figa {name}",
        description="\n\n".join(part for part in (_sentence(first), rest.strip()) if part),
        epilog=epilog if "exit codes:" in epilog else f"{epilog}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if name in ("-V", "--version"):
        print(f"figa-pipeline {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"error: no command {name!r}{hint}\nhelp: figa --help", file=sys.stderr)
        return 2
    parser = parser_of(name)
    command: ModuleType = import_module(f"pipeline.cli.{name}")
    if not arguments and getattr(command, "HELP_WHEN_BARE", False):
        parser.print_help(sys.stderr)
        return 2
    parsed = parser.parse_args(arguments)
    return exit_code_of(lambda: command.run(parsed), command.INTERRUPTED)


def _overview() -> str:
    lines = ["usage: figa COMMAND ...", "", "Create and use fine-grained preference data (FIGA).", "", "commands:"]
    for name in COMMANDS:
        first = (import_module(f"pipeline.cli.{name}").__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:<10} {_sentence(first)}")
    return "\n".join([*lines, "", "`figa COMMAND --help` has examples and exit codes; `figa --version` the version."])


def _sentence(first: str) -> str:
    """The first line of a command's docstring without its usage."""
    return first.partition("`: ")[2]
