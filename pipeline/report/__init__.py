"""report.html: one self-contained page that shows a data set, built from the files in its folder alone.

page         the template, with style and script under a strict Content Security Policy
charts       histograms and shares as SVG
sample       which rows the viewer shows, and their texts and tokens
viewer.js    the pairs: search, diff, and review, whose decisions `figa review` applies
diffs        the two answers of a pair as tokens with edit operations, and in colour for a terminal
comparison   two data sets side by side

Knows nothing of runs, stages in progress or the command line.
"""
