"""Where the files that ship with the package are: `prompts/` and `data/`."""

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def folder(name: Literal["prompts", "data"]) -> Path:
    """The shipped folder: inside the package when installed from a wheel, beside it in a checkout."""
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name
