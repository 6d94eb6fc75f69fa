"""Prefect flows: the same run as `python -m pipeline.build`, visible and schedulable at a Prefect server."""
