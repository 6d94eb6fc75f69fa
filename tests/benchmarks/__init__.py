"""Speeds and sizes as ratios, each against a limit that is measured in the same run: `python -m tests.benchmarks`.

Never part of the test suite: on a busy machine absolute times mean little.
"""
