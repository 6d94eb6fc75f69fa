"""`python -m flows.serve`: the deployments of prefect.yaml, run by this process; needs neither work pool nor worker."""

from pathlib import Path

import yaml
from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.events import DeploymentTriggerTypes
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.importtools import import_object
from pydantic import TypeAdapter

_SERVED = ("name", "description", "version", "tags", "parameters")

if __name__ == "__main__":
    made = []
    for spec in yaml.safe_load(Path("prefect.yaml").read_text("utf-8"))["deployments"]:
        triggers = TypeAdapter(list[DeploymentTriggerTypes]).validate_python(spec.get("triggers", []))
        options = {name: spec[name] for name in _SERVED if name in spec}
        if "concurrency_limit" in spec:
            options["concurrency_limit"] = ConcurrencyLimitConfig(**spec["concurrency_limit"])
        flow = import_object(spec["entrypoint"])
        made.append(flow.to_deployment(**options, triggers=triggers, entrypoint_type=EntrypointType.MODULE_PATH))
    serve(*made)
