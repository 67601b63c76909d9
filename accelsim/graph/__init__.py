"""The float network as data: reading it from ONNX, writing it back, and the quantized network."""
