"""What `python -m pipeline.verify` checks: the manifest, the files that it names, and every row in them."""
