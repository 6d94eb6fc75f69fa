"""The fixtures of this folder: a Prefect server, its deployments and a worker, as long as its tests run."""

from tests.flows.server import deployed, prefect, worker

__all__ = ["deployed", "prefect", "worker"]
