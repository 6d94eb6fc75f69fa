"""Relabelling as a Prefect flow: the texts of a published data set with other token labels, without a model call."""

import functools
from typing import Any

from prefect import flow, get_run_logger

from flows.artifacts import announce
from flows.steps import as_task
from pipeline.dataset.reader import read_manifest
from pipeline.run import relabel as relabelling
from pipeline.storage.location import location


@flow(name="relabel", flow_run_name="relabel-{data_dir}", persist_result=False)
def relabel(
    data_dir: str, out: str, tokenizer: str | None = None, assignments: list[str] | None = None
) -> dict[str, Any]:
    """Label a data set's texts again, as a data set of its own, and emit `figa.dataset.published`. Returns its row counts.

    Args:
        data_dir: Folder of the published data set
        out: Folder of the new data set
        tokenizer: Folder or Hub id of the tokenizer of the model to train; default: the one in use
        assignments: Settings such as labels.granularity=word; all others stay as they were
    """
    root, target = location(data_dir), location(out)
    flags = {"labels.tokenizer": tokenizer}
    labels = relabelling.relabel_settings(read_manifest(root), assignments or [], flags).labels
    log = get_run_logger()
    warn = functools.partial(log.warning, "%s")
    manifest, _ = as_task(
        "publish", lambda: relabelling.relabel(root, target, labels, advance=lambda rows: None, warn=warn), out=target
    )
    log.info("%s: %s", out, manifest["rows"])
    announce(target, manifest)
    return {"out": out, "digest": manifest["digest"], **manifest["rows"]}
