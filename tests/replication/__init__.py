"""A small replication of the paper on a CPU: `python -m tests.replication`. What came out: docs/replication.md."""
