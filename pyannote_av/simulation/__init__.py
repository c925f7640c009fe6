"""Composed audio-visual material with exact references."""
