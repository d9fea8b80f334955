"""Weights in few bits, activations in float: blocks of 4 bits, codebooks."""
