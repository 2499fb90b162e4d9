"""All that a plugin's author writes to know that it fits."""

from interp.testing import PluginConformance


class TestExample(PluginConformance):
    distribution = "small-vectors-example"
