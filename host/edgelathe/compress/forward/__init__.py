"""Running parts of a model over samples, in bounded memory."""
