"""Jobs that write a data set: plan, shards, publication, relabelling, merging; and what they report while they work."""
