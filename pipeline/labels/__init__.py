"""Token labels: alignment, signals and weights of answer pairs."""

from pipeline.labels.signals import TokenSignals, token_signals

__all__ = ["TokenSignals", "token_signals"]
