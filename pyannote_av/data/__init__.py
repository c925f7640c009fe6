"""Stores of face crops, sound and features, and their readers."""
