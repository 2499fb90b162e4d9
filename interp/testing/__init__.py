"""For authors of plugins: a class of tests that a package passes before it is published, and a small model to test on.

    from interp.testing import PluginConformance

    class TestMine(PluginConformance):
        distribution = "my-plugin"

pytest runs it. Nothing here imports pytest.
"""

from interp.testing.conformance import PluginConformance as PluginConformance
from interp.testing.tiny import tiny_model as tiny_model
from interp.testing.tiny import tiny_task as tiny_task
from interp.testing.tiny import tiny_vectors as tiny_vectors
from interp.testing.tiny import tokenizer as tokenizer

__all__ = ["PluginConformance", "tiny_model", "tiny_task", "tiny_vectors", "tokenizer"]
