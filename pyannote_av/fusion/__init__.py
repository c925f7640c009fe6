"""Voices and faces to speakers: decisions taken on the outputs of the two branches.

Pure functions of arrays, without models and without files. Speaking scores are calibrated
log-odds on the 25 Hz grid of the picture; voices are turns of the audio branch.
"""
