"""The only importer of the kernels: fixes types and layouts, chooses the path, calls them."""
