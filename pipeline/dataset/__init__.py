"""A published data set: its manifest, files, reading, batches, verification and card. Knows nothing of runs."""
