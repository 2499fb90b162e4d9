"""A plugin: one part of each kind."""
