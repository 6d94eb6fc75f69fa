"""Golden hashes: the bytes that three configurations publish and keep, so that a refactoring can't change them unseen.

`python -m tests.golden` writes `hashes.json` again; do so only where a stage's version rose on purpose.
"""
