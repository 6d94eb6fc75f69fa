"""Types of command-line arguments that are numbers."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import partial
from typing import Any


def _number(kind: Callable[[str], Any], fits: Callable[[Any], bool], expected: str, text: str) -> Any:
    try:
        number = kind(text)
        if fits(number):
            return number
    except ValueError:
        pass
    raise ArgumentTypeError(f"expected {expected}, got {text!r}")


count = partial(_number, int, lambda n: n >= 0, "a number from 0")
positive_integer = partial(_number, int, lambda n: n > 0, "a number from 1")
positive_number = partial(_number, float, lambda n: 0 < n < math.inf, "a number above 0")
nats = partial(_number, float, lambda n: n >= 0, "a number from 0, or inf")
