"""Running integer programs: folds and cycles, the engine that calls the kernels, results."""
