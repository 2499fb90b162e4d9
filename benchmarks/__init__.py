"""Benchmarks: the same work here and with other libraries, equal results first, then times."""
