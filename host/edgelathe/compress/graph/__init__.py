"""Changes of a graph that are equal in effect: small moves, folding, equalization, packed constants."""
