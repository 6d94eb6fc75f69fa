"""Training as a Prefect flow: started by hand, or by the event of a data set that was published and verified."""

import hashlib
import json
from typing import Any

from prefect import flow
from prefect.events import emit_event

from pipeline.dataset import manifest
from pipeline.errors import StorageError
from pipeline.storage.location import location
from pipeline.training.rounds import trained

TRAINED = "figa.model.trained"


@flow(name="train", flow_run_name="train-{data_dir}", persist_result=False)
def train(
    data_dir: str, model: str, out: str, manifest_sha256: str | None = None, options: list[str] | None = None
) -> dict[str, Any]:
    """Train a model by `figa train`; emits `figa.model.trained`. Returns the model's folder and the pairs it has seen.

    Args:
        data_dir: Folder of the published data set
        model: Folder or Hub id of the model, whose tokenizer is that of the labels
        out: Folder of trained models; this one's is named after the digest of the data set's manifest
        manifest_sha256: Of the manifest to train on; the run fails when the data set was published again since
        options: More of `figa train`, such as --epochs=3
    """
    found = hashlib.sha256((location(data_dir) / manifest.NAME).read_bytes()).hexdigest()
    if manifest_sha256 and found != manifest_sha256:
        raise StorageError(
            f"{data_dir}: its manifest is {found[:12]}, not {manifest_sha256[:12]}: it was published again"
        )
    target = trained(location(data_dir), model, location(out), options or [])
    pairs = json.loads((target / "training.json").read_text("utf-8"))["pairs"]
    result = {"out": str(target), "manifest_sha256": found, **pairs}
    resource = {"prefect.resource.id": "figa.model.trained", "prefect.resource.name": str(target)}
    emit_event(event=TRAINED, resource=resource, payload=result)
    return result
