"""The server's and the worker's fixtures, for every test of this folder."""

from tests.flows.server import prefect, worker

__all__ = ["prefect", "worker"]
