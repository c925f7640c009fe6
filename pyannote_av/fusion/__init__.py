"""Fusion of the outputs of the audio and video branches into speakers.

Pure functions of arrays, without models and without files. Speaking scores are calibrated
log-odds on the 25 Hz video grid. Voices are the speakers found by the audio branch, given as turns.
"""
