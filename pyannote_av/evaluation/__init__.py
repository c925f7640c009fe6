"""Evaluation with the metrics and protocols of the literature."""
