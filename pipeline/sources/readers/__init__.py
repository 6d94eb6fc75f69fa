"""File formats: records out of JSON, CSV and Parquet files."""
