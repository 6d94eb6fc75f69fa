"""Fine-grained preference data by the FIGA method: sample, score, select, revise, filter, label, publish.

Importing this package loads nothing heavy.
"""

__version__ = "0.1.0"
