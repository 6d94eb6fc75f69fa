"""`figa COMMAND`, the same as `python -m pipeline COMMAND`."""

from __future__ import annotations

import sys
from importlib import import_module

_COMMANDS = "build verify relabel merge export show calibrate compare status push cancel report rewards train".split()


def main() -> int:
    """Run a command; returns the exit code."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in _COMMANDS:
        print(f"usage: figa COMMAND ...\n\ncommands: {' '.join(_COMMANDS)}", file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    code: int = import_module(f"pipeline.cli.{name}").main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
