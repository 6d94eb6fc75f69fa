"""Makes the fixtures known to this folder's tests."""

from tests.loopback.fixtures import loopback  # noqa: F401
