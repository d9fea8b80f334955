"""TensorRT itself."""
