"""Verification as a Prefect flow, so that a published data set can be checked again on a schedule."""

from dataclasses import asdict
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows.artifacts import VERIFIED, announce
from pipeline.cli.console import progress_bar
from pipeline.dataset.reader import read_manifest
from pipeline.dataset.verify import verify as check
from pipeline.errors import StorageError
from pipeline.storage.location import location
from pipeline.text import visible

_SHOWN = 100


@flow(name="verify", flow_run_name="verify-{data_dir}", persist_result=False)
def verify(data_dir: str, sample: int | None = None, tokenizer: str | None = None) -> dict[str, Any]:
    """Check that everything a data set's manifest says is true, and emit `figa.dataset.verified`; fails when it isn't.

    Returns the counts.

    Args:
        data_dir: Folder of the published data set
        sample: Check the labels of so many rows only; all else is checked whole
        tokenizer: Folder or Hub id of the labels' tokenizer, where the recorded name is of no use
    """
    result = check(data_dir, sample=sample, tokenizer=tokenizer, progress=progress_bar)
    log = get_run_logger()
    for note in result.notes:
        log.warning("%s", visible(note))
    if result.count:
        rows = [{name: visible(str(value)) for name, value in asdict(p).items()} for p in result.problems[:_SHOWN]]
        create_table_artifact(rows, key="figa-problems", description=f"{result.count} problems in {data_dir}")
        raise StorageError(f"{data_dir}: {result.count} problems, the first: {visible(str(result.problems[0]))}")
    log.info("%s: all is as the manifest says; %d rows, labels of %d checked", data_dir, result.rows, result.labelled)
    root = location(data_dir)
    announce(root, read_manifest(root), VERIFIED)
    return {"rows": result.rows, "labels_checked": result.labelled}
