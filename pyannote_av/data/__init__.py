"""Stores of face crops, sound and features, and what reads them."""
