"""Prefect flows: the same run as `figa build`, visible and schedulable at a Prefect server."""
