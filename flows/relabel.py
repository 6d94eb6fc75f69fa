"""Relabelling as a Prefect flow: the texts of a published data set with other token labels. No model is asked."""

from __future__ import annotations

import functools
from typing import Any

from prefect import flow, get_run_logger

from flows.artifacts import announce
from pipeline.dataset.reader import read_manifest
from pipeline.run.relabel import relabel as make
from pipeline.run.relabel import relabel_settings
from pipeline.storage.location import location


@flow(name="relabel", flow_run_name="relabel-{data_dir}", persist_result=False)
def relabel(
    data_dir: str, out: str, tokenizer: str | None = None, assignments: list[str] | None = None
) -> dict[str, Any]:
    """Label a data set anew, as a data set of its own, and emit `figa.dataset.published`. Returns where it is and its rows.

    Args:
        data_dir: Folder of the published data set
        out: Folder of the new data set
        tokenizer: Folder or Hub id of the tokenizer of the model to train; default: the one in use
        assignments: Settings such as labels.granularity=word; what is not given stays as it was
    """
    config = relabel_settings(read_manifest(location(data_dir)), assignments or [], {"labels.tokenizer": tokenizer})
    log = get_run_logger()
    made = make(
        location(data_dir), location(out), config.labels, advance=_nothing, warn=functools.partial(log.warning, "%s")
    )
    log.info("%s: %s", out, made["rows"])
    announce(location(out), made)
    return {"out": out, "digest": made["digest"], **made["rows"]}


def _nothing(rows: int) -> None: ...
