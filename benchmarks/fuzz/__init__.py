"""Hostile requests against the real service: what they are, what is right, and who counts."""
