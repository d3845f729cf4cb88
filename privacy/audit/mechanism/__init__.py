"""Measures the privacy of a running service against what its receipts claim."""
