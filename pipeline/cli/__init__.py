"""The command line: one file per command, and the plumbing that they share."""
