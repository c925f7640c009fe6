"""Outputs as files. A file appears whole or not at all."""
