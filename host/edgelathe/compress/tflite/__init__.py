"""The steps for TFLite models."""
