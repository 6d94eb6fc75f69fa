"""The settings of a run: their sections, values and defaults, where they are loaded from, and how models are named."""
