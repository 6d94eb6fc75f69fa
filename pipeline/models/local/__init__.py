"""Embedded models: the catalogue, their download, and the local server that answers for them."""
