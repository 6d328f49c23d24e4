"""Batch jobs: from files of sequences to files of predictions, over crashes; they need pyarrow."""
