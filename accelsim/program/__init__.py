"""The integer program: what the accelerator executes, layer by layer, and how a quantized graph becomes one."""
