"""How each kind of layer is executed and counted: one file per family, registered by the layer's class."""
