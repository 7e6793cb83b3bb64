"""Encoders on ONNX Runtime."""
