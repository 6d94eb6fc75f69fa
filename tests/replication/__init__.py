"""A small replication of the paper on a CPU: `python -m tests.replication`. What came out: docs/replication.md.

The suite, marked slow, trains two steps per method of a tiny random model, and checks what the measures are worth.
"""
