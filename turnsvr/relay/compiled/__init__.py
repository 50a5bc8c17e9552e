"""The data plane in C, on threads that do not need Python. README.md tells how it hangs together."""
