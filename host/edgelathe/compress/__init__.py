"""Transforms of models, one module each."""
