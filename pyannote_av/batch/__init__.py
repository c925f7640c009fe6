"""Batch processing: the same work on many files, each exactly once, on one machine or several."""
