"""Sixteen bits in floating point."""
