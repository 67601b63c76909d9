"""Steps of kernels as LLVM vectors, each beside the scalar loop that it equals."""
