"""Token labels: alignment, signals and weights of answer pairs."""

from pipeline.labels.alignment import TokenSignals, token_signals

__all__ = ["TokenSignals", "token_signals"]
