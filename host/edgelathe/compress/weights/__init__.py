"""How the weights of a layer are chosen: least squares, second-order rounding, representatives, saturation."""
