"""Arguments that several commands take, and types of numbers and folders."""

from __future__ import annotations

import argparse
import math
import os
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.storage.location import location
from pipeline.storage.remote import RemotePath
from pipeline.text import shown

if TYPE_CHECKING:
    from pipeline.config.settings import CurationConfig


def _number(kind: Callable[[str], Any], fits: Callable[[Any], bool], expected: str, text: str) -> Any:
    try:
        number = kind(text)
        if fits(number):
            return number
    except ValueError:
        pass
    raise ArgumentTypeError(f"expected {expected}, got {text!r}")


def _whole(text: str) -> int:
    """At most what the libraries below count with, which no data set reaches."""
    return min(int(text), 2**63 - 1)


count = partial(_number, _whole, lambda n: n >= 0, "a number from 0")
positive_integer = partial(_number, _whole, lambda n: n > 0, "a number from 1")
positive_number = partial(_number, float, lambda n: 0 < n < math.inf, "a number above 0")
_nats = partial(_number, float, lambda n: n >= 0, "a number from 0, inf, or LOW,HIGH")


def gate(text: str) -> float | tuple[float, float]:
    """A confidence gate in nats: the highest, or the window LOW,HIGH."""
    low, comma, high = text.partition(",")
    if not comma:
        return float(_nats(text))
    window = (_nats(low), _nats(high))
    if window[0] > window[1]:
        raise ArgumentTypeError(f"expected LOW,HIGH with LOW below HIGH, got {text!r}")
    return window


def folder(text: str) -> Path:
    """An output folder: a path, or the URL of a store."""
    try:
        return location(text)
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from None


def existing_folder(text: str) -> Path:
    """The output folder of a run, which must be there; of one in a store, the first access says so."""
    path = folder(text)
    try:
        if not isinstance(path, RemotePath) and not path.is_dir():
            raise ArgumentTypeError(f"{shown(path)}: {'is not a folder' if path.exists() else 'no such folder'}")
    except OSError as error:
        raise ArgumentTypeError(f"{shown(path)}: {error.strerror}") from None
    return path


def local_folder(text: str) -> Path:
    """An output folder on this machine."""
    path = folder(text)
    if isinstance(path, RemotePath):
        raise ArgumentTypeError(f"{text}: here a folder on this machine is needed")
    return path


def add_dir(p: argparse.ArgumentParser, help: str = "output folder of a finished run") -> None:
    p.add_argument("dir", metavar="DIR", type=existing_folder, help=help)


def add_set(p: argparse.ArgumentParser, help: str) -> None:
    p.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=f"{help}; repeatable")


def add_config(p: argparse.ArgumentParser, help: str) -> None:
    p.add_argument("--config", metavar="FILE.yaml", type=Path, help=help)
    p.add_argument(
        "--allow-plugins",
        action="store_true",
        help="run the code that a file of settings names: source.plugins, reward.trust_remote_code",
    )


def add_tokenizer(p: argparse.ArgumentParser) -> None:
    p.add_argument("--tokenizer", metavar="PATH_OR_ID", help="the labels' tokenizer, if not where it is recorded")


def add_run_settings(p: argparse.ArgumentParser) -> None:
    """The flags and settings that describe a run, for `run_config`."""
    p.add_argument("--source", metavar="NAME", help="adapter, or several with commas")
    p.add_argument("--input", metavar="PATH_OR_HUB_ID", help="file, folder, glob, URL or Hub id instead of its own")
    p.add_argument("--limit", metavar="N", help="read at most N rows")
    p.add_argument("--target", metavar="N", help="read on until N pairs are published, or the source ends")
    p.add_argument("--out", metavar="DIR", help="output folder (default out/NAME)")
    add_config(p, "settings; flags and --set go before it")
    p.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="settings (figa settings); repeatable",
    )
    p.add_argument("--budget", metavar="USD", help="stop before more than this is spent in the output folder")
    p.add_argument("--require-full-source", action="store_true", help="fail rather than use the bundled sample")


def run_config(arguments: argparse.Namespace) -> CurationConfig:
    """The configuration by the arguments of `add_run_settings`. Raises ConfigError, also when no source is named."""
    from pipeline.config.loading import load_config

    flags = {
        "source.name": arguments.source,
        "source.input": arguments.input,
        "source.limit": arguments.limit,
        "source.target": arguments.target,
        "source.require_full": arguments.require_full_source or None,
        "output.dir": arguments.out,
        "run.budget_usd": arguments.budget,
    }
    config = load_config(arguments.config, arguments.set, flags, os.environ, allow_code=arguments.allow_plugins)
    if "name" not in config.source.model_fields_set:
        raise ConfigError("no source: name one, for example --source hh-rlhf (figa build --help)")
    if arguments.own_process and not _may_use_torch(config, arguments):
        from pipeline.labels.loading import leave_torch_out

        leave_torch_out()
    return config


def _may_use_torch(config: CurationConfig, arguments: argparse.Namespace) -> bool:
    return bool("hf/" in config.reward.model or config.source.plugins or getattr(arguments, "rounds", None))
