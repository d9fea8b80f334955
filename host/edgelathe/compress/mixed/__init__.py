"""Bits of its own for each layer."""
