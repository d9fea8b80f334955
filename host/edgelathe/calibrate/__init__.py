"""One-pass statistics of activations and weights, and the choice of scales."""
