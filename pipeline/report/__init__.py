"""report.html: one self-contained file that shows a data set, made from its folder alone.

measures   one pass over the published files: a few numbers a row
sample     which rows the viewer shows, and their texts and tokens
charts     histograms and shares as SVG
page       the template, with style and script under a strict Content Security Policy
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.labels.tokenizer import LabelTokenizer

NAME = "report.html"


def write(
    out: Path,
    manifest: dict[str, Any],
    tokenizer: LabelTokenizer | None,
    *,
    note: str = "",
    advance: Callable[[int], None] = lambda rows: None,
) -> Path:
    """Write report.html into the data set's folder; returns its path.

    manifest: what manifest.json says or is about to say. tokenizer: the labels' own; None shows pairs without exact token
    boundaries, and `note` should say why. advance: told the number of rows read, each row once.
    Raises StorageError for files that are not as the manifest says.
    """
    from pipeline.dataset import measures
    from pipeline.report import page, sample
    from pipeline.storage.atomic import write_text
    from pipeline.text import redact_paths

    files = measures.files_of(out, manifest)
    measured = measures.measure(files, advance)
    shown = sample.draw(files, measured, tokenizer)
    path = out / NAME
    write_text(path, page.render(redact_paths(manifest), measured, shown, note))
    return path
