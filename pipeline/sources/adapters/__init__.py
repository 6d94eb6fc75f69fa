"""One adapter per data set: from a raw record to a query with its reference."""
