"""Intervals, paired tests, metrics; each with its source."""
