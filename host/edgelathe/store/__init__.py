"""Runs and devices in a database."""
