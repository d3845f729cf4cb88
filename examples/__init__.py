"""The demo, and loops of one's own on the same parts."""
