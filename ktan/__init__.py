"""Data, networks, taps, losses, methods and the trainer: everything that needs no wire."""
