"""TFLite models: from a flatbuffer to an integer program, with the arithmetic of LiteRT's or TFLite Micro's kernels."""
