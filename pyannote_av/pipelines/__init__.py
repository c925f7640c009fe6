"""Pipelines, one per module. They load and tune like pyannote.audio pipelines."""
