"""Static and dynamic integer quantization."""
