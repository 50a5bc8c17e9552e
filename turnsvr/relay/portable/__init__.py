"""The data plane in plain Python: the reference, and what serves where the compiled one does not load."""
