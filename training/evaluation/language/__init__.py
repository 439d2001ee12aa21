"""Evaluation of language models: their form, what their fields say, and what they cite."""
