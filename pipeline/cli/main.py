"""`figa COMMAND`: finds the command's file, parses, runs it, and turns how it ends into an exit code.

A command is a module beside this one:

    docstring               its help; the first line is `figa NAME …`: and what it does
    EXAMPLES                command lines
    EXIT_CODES              where they are not the usual ones
    INTERRUPTED             what the user reads after Ctrl-C; default: nothing was changed
    HELP_WHEN_BARE          print the help when there are no arguments
    add_arguments(parser)
    run(arguments)          → exit code and the result, which --json prints; its other output then goes to standard error

The modules import nothing heavy at their top.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from pipeline import __version__
from pipeline.cli.console import accept_any_text
from pipeline.cli.interrupts import exit_code_of
from pipeline.errors import CurationError
from pipeline.text import did_you_mean, one_line

COMMANDS = (
    "build check settings show review status report verify relabel export merge compare calibrate rewards train push cancel"
).split()
# These never use a model; a run may, see `arguments.run_config`.
_TOKENIZERS_ALONE = ("status", "verify", "relabel", "export", "review")
_EXIT_CODES = "0 done · 1 failed · 2 bad usage, setting or input · 130 interrupted · 143 terminated"


class Parser(argparse.ArgumentParser):
    """argparse's parser; the message about an unknown flag names the nearest known one."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].partition(" ")[0].partition("=")[0]
        near = did_you_mean(unknown, (flag for flag in self._option_string_actions if flag.startswith("--")))
        self.exit(2, f"error: {one_line(message, 1000)}{near}\nhelp: {self.prog} --help\n")


def parser_of(name: str) -> Parser:
    command = _module(name)
    does, _, rest = _docstring(command)
    examples = "\n".join(f"  {example}" for example in command.EXAMPLES)
    parser = Parser(
        prog=f"figa {name}",
        description=f"{does}\n\n{rest.strip()}".strip(),
        epilog=f"examples:\n{examples}\n\nexit codes: {getattr(command, 'EXIT_CODES', _EXIT_CODES)}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    if name != "show":  # Its --json prints an object per row.
        parser.add_argument("--json", action="store_true", help="print one JSON object at the end, all else to stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Without `argv` the process is this program's own."""
    accept_any_text()
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        return exit_code_of(lambda: _print(_overview()), "nothing was changed")
    if name in ("-V", "--version"):
        return exit_code_of(lambda: _print(f"figa-pipeline {__version__}"), "nothing was changed")
    if any("\0" in argument for argument in (name, *arguments)):
        print("error: an argument holds a NUL character, which no path or setting has", file=sys.stderr)
        return 2
    if name not in COMMANDS:
        print(f"error: no command {one_line(name)!r}{did_you_mean(name, COMMANDS)}\nhelp: figa --help", file=sys.stderr)
        return 2
    command, parser = _module(name), parser_of(name)
    parser.set_defaults(own_process=argv is None)
    if not arguments and hasattr(command, "HELP_WHEN_BARE"):
        parser.print_help(sys.stderr)
        return 2
    return exit_code_of(
        lambda: _run(command, parser.parse_args(arguments)), getattr(command, "INTERRUPTED", "nothing was changed")
    )


def _run(command: ModuleType, arguments: argparse.Namespace) -> int:
    as_json = getattr(arguments, "json", False)
    if arguments.own_process and command.__name__.rpartition(".")[2] in _TOKENIZERS_ALONE:
        from pipeline.labels.loading import leave_torch_out

        leave_torch_out()
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            code, result = command.run(arguments)
    except CurationError as error:
        if as_json:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}, ensure_ascii=False))
        raise
    if as_json and result is not None:
        print(json.dumps(result, ensure_ascii=False))
    return int(code)


def _print(text: str) -> int:
    print(text)
    return 0


def _overview() -> str:
    lines = ["usage: figa COMMAND ...", "", "Create and use fine-grained preference data (FIGA).", ""]
    lines += ["first try: figa build --source demo   (seconds; no model, key or network)", "", "commands:"]
    lines += [f"  {name:<10} {_docstring(_module(name))[0]}" for name in COMMANDS]
    return "\n".join([*lines, "", "`figa COMMAND --help` has examples and exit codes; `figa --version` the version."])


def _module(name: str) -> ModuleType:
    return import_module(f"pipeline.cli.{name}")


def _docstring(command: ModuleType) -> tuple[str, str, str]:
    """What a command does, in a line without its usage, and the rest of its docstring."""
    return (command.__doc__ or "").partition("`: ")[2].partition("\n")
