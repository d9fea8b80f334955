"""ONNX and TFLite models: load, save, one graph view for both, inspect, run on the host."""
