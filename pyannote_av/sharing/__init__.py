"""Sharing of results: pipeline folders, model cards, the Hugging Face hub."""
