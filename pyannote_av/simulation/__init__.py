"""Simulation of audio-visual conversations with exact references."""
