"""Pipelines: one file per way of working, loadable and tunable as any of pyannote.audio."""
