"""Tuning of the hyper-parameters of pipelines."""
