"""Bounds that settings and options share; without the library that checks settings, so that help stays fast."""

MOST = 1_000_000
"""A count above it is a slip of the keyboard: no run of so many problems, draws or tokens would end."""
HIGHEST_SEED = 2**62
"""Seeds are added to and handed to NumPy and torch, which take neither negative ones nor any of 64 bits."""
VERBATIM = "verbatim"
"""Marks texts whose spaces count, such as tokens."""
