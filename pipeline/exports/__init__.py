"""The published pairs in the formats of other trainers.

Each format is a pure function from pairs to rows, and a Markdown file with the contract of the loss that its columns are
for; `writing` reads, streams and writes, and knows no format.
"""
