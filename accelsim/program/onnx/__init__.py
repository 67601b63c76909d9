"""ONNX models that were quantized elsewhere (QLinear operators, QDQ graphs) as integer programs."""
