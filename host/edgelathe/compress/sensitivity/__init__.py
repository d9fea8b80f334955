"""What each layer costs the model, and why answers moved."""
