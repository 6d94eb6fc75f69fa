"""report.html: one self-contained page that shows a data set, built from the files in its folder alone.

page         the template, with style and script under a strict Content Security Policy
charts       histograms and shares as SVG
sample       which rows the viewer shows, and their texts and tokens
diffs        the two answers of a pair as tokens with edit operations, and in colour for a terminal
comparison   two data sets side by side

Knows nothing of runs, stages in progress or the command line.
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
    """Write report.html into the data set's folder and return its path.

    manifest: the content of manifest.json, written or about to be. tokenizer: the labels' own; with None pairs are shown
    by words, and `note` should say why. advance: called with the number of rows read, once per published row.
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
