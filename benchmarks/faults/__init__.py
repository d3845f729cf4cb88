"""Faults while clients ask: is every answer charged once, and the same for ever?"""
