"""Membership inference: how well one can tell from answers that a record was in."""
