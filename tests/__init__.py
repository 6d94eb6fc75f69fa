"""The tests, a folder per room of `pipeline/`, and tools of their own, each described in its package's docstring.

`loopback` is a model server, `golden` keeps hashes of published bytes, `kills` kills whole runs, `benchmarks` measures ratios,
`replication` repeats the paper's comparison, `readings` holds pairs that were read blind. `python -m pytest` leaves out
the tests marked slow, `-m slow` runs those alone, `-m ''` all; `-n 0` runs them in one process, as a debugger needs it.
"""
