"""Fixtures of this folder."""

from tests.exports.published import published

__all__ = ["published"]
