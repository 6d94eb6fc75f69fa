"""Whole runs that are killed with -9, signalled, or refused by their disk, resumed, and compared byte for byte.

`python -m tests.kills` kills runs on this disk, `python -m tests.kills.s3` runs into a bucket of a real S3 server process;
`python -m tests.kills.disks` refuses at every step of the commit protocol. Smaller ones are in the suite, marked slow.
"""
