"""Fixtures of this folder."""

from tests.models.real import smollm2

__all__ = ["smollm2"]
