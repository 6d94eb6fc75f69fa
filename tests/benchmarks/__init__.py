"""Speeds and sizes as ratios, each against a limit that is measured in the same run: `python -m tests.benchmarks`.

On a busy machine absolute times mean little: no test asserts one. The suite, marked slow, shows that each benchmark runs.
"""
