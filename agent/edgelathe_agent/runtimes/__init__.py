"""One module a runtime; all of them offer `Session`."""
