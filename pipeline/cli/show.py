"""`figa show DIR`: print pairs, the best first, or rejected rows, of a published data set.

Best: by standardised reward gain minus edit distance. Rejected rows, and all pairs (--limit 0), come in stored order.
A condition compares a column, reward_gain or prompt with a number or a text by = != < <= > >= or ~ (contains); several are
joined by `and`.
[-removed-] and {+added+} tokens; control characters and other invisible ones are shown by their code.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipeline.cli.arguments import add_dir, add_tokenizer, count
from pipeline.cli.console import Console, note
from pipeline.errors import UsageError
from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.dataset.measures import Files

EXAMPLES = (
    "figa show out/demo --where 'reward_gain>0.3 and diagnosis=inaccuracy'",
    "figa show out/demo --where 'prompt~sky'",
    "figa show out/hh-rlhf --rejected --where 'stage=select and reward_initial<0'",
    "figa show out/demo --row e189300ec7dba690",
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p)
    p.add_argument("--row", metavar="ID", help="this row, published or rejected")
    p.add_argument("--rejected", action="store_true", help="rejected rows, with their reasons")
    p.add_argument("--where", metavar="CONDITION", default="", help="only rows for which it holds; see above")
    p.add_argument("--limit", metavar="N", type=count, default=10, help="at most so many rows (default 10, 0: all)")
    add_tokenizer(p)
    p.add_argument("--json", dest="json_rows", action="store_true", help="print one JSON object per row")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.dataset.facts import gate
    from pipeline.dataset.measures import files_of, gate_share
    from pipeline.dataset.reader import read_manifest
    from pipeline.labels.loading import labels_tokenizer
    from pipeline.report.diffs import draw

    manifest = read_manifest(arguments.dir)
    files = files_of(arguments.dir, manifest)
    rows, more = _rows(files, arguments)
    if arguments.row and not arguments.rejected:
        first = next(rows, None)
        arguments.rejected = first is None
        rows, more = _rows(files, arguments) if first is None else (iter([first]), False)
    tokenizer, problem = (None, "") if arguments.rejected else labels_tokenizer(manifest, arguments.tokenizer)
    if problem:
        note(problem)
    console = Console(soft_wrap=True)
    shown = 0
    for row in islice(rows, arguments.limit or None):
        if arguments.json_rows:
            print(json.dumps(row, ensure_ascii=False, default=list))
        elif arguments.rejected:
            console.print(_reject(row))
        else:
            text = draw(row, tokenizer, whole=bool(arguments.row))
            console.print(text.append(f"\nreference  {visible(row['reference'])}\n{_scores(row)}", "dim"))
        shown += 1
    if not shown and arguments.row:
        raise UsageError(f"{arguments.dir}: no row has the id {arguments.row!r}, published or rejected")
    more = more or (shown == arguments.limit and next(rows, None) is not None)
    reached = f"; --limit {arguments.limit} was reached" if more else ""
    print(f"{shown} {'rejected rows' if arguments.rejected else 'pairs'} shown{reached}", file=sys.stderr)
    if not arguments.rejected:
        share = gate_share(files.published, manifest["labels"]["gate"])
        if line := gate(manifest, share):
            print(line, file=sys.stderr)
    return 0, None


def _rows(files: "Files", arguments: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], bool]:
    """The requested rows, and whether they are known to be more than the limit. UsageError for an unreadable condition.

    Where all are requested, in stored order, one batch is in memory at a time.
    """
    from pipeline import schema
    from pipeline.dataset import query
    from pipeline.dataset.best import best_rows
    from pipeline.dataset.reader import batches, reading

    paths, columns = (files.rejected, schema.REJECTED) if arguments.rejected else (files.published, schema.PUBLISHED)
    if paths:
        # Older data sets have fewer columns.
        with reading(paths[0]) as file:
            columns = file.schema_arrow
    conditions = query.parse(arguments.where, columns) if arguments.where.strip() else []
    if arguments.row:
        conditions.append(("id", "=", arguments.row))
    elif arguments.limit and not arguments.rejected:
        rows, count = best_rows(paths, arguments.limit, conditions)
        return rows, count > arguments.limit
    every = (row for path in paths for batch in batches(path) for row in query.matching(conditions, batch))
    return every, False


def _reject(row: dict[str, Any]) -> Text:
    from pipeline.report.diffs import append_query

    text = Text(f"\n{visible(str(row['id']))}", "bold")
    text.append(f"  rejected at {visible(row['stage'])}: {visible(row['reason'])}\n", "not bold yellow")
    append_query(text, row["messages"] or [], whole=True)
    for name in ("initial", "revised", "reference", "evidence"):
        if row[name]:
            text.append(f"{name:<10} ", "not bold dim")
            text.append(f"{visible(row[name])}\n", "not bold")
    return text.append(_scores(row), "not bold dim")


def _scores(row: dict[str, Any]) -> str:
    """The known rewards of a row, and where it is from."""
    known = [(name, row[f"reward_{name}"]) for name in ("reference", "initial", "revised")]
    rewards = ", ".join(f"{name} {value:.2f}" for name, value in known if value is not None)
    source = f"source     {visible(str(row['source']))}, row {row['source_row']}"
    return f"rewards    {rewards}\n{source}" if rewards else source
