"""Two blind readings of pairs that a run of the defaults published: `python -m tests.readings`."""
