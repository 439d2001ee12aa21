"""Inference engines, one file each, behind the Protocol of ``protocol.py``."""
