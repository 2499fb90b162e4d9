"""What code reads outside of its text and its values: files, settings, the clock, common random streams."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping

FUNCTIONS = frozenset({"eval", "exec", "compile", "globals", "locals", "vars", "open", "input", "__import__"})
"""Functions of Python by which code reaches what its text does not tell."""
NAMES = frozenset(
    {"environ", "getenv", "import_module", "open", "read_text", "read_bytes", "load", "load_file", "safe_open"}
    | {"loadtxt", "genfromtxt", "fromfile", "memmap", "read_csv", "read_json", "read_parquet", "from_pretrained"}
    | {"urlopen", "listdir", "scandir", "iterdir", "getsize", "getmtime"}
)
"""Names of functions and attributes that read files, the environment or the network, whatever library has them."""
MODULES: Mapping[str, frozenset[str] | None] = {
    "subprocess": None,
    "socket": None,
    "sqlite3": None,
    "requests": None,
    "httpx": None,
    "urllib.request": None,
    "sys": frozenset({"modules", "argv", "stdin"}),
    "time": frozenset({"time", "time_ns", "monotonic", "perf_counter", "process_time", "localtime", "gmtime"}),
    "datetime": frozenset({"now", "today", "utcnow"}),
    "random": frozenset(
        {"random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "gauss", "uniform"}
    ),
    "torch": frozenset({"rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "dropout"})
    | {"rand_like", "randn_like", "randint_like", "normal_", "uniform_", "bernoulli_", "exponential_"},
    "numpy": frozenset({"rand", "randn", "randint", "random_sample", "permutation", "standard_normal"}),
    "numpy.random": frozenset({"rand", "randn", "randint", "random_sample", "permutation", "standard_normal"}),
}
"""Modules that reach outside by some of their names; None = by any. Random streams are those that all code shares."""
_OWN_STREAM = frozenset({"generator", "default_rng", "RandomState", "Random", "fork_rng", "manual_seed"})
"""Names that tell of a random stream whose state is a value, or that is started by the code."""
_RANDOM = frozenset({"random", "torch", "numpy", "numpy.random"})


def hidden_read(used: Iterable[object], missing: Iterable[str], names: frozenset[str], texts: frozenset[str]) -> str:
    """Return a name by which a function reads what neither its code nor its values tell; empty where there is none.

    Args:
        used: values that it uses.
        missing: names that it reads and that its module does not define.
        names: names and attributes in its code.
        texts: constants of its code that could be names, such as those of the arguments that it passes on.
    """
    plain = sorted(FUNCTIONS.intersection(missing) | names & NAMES)
    if plain:
        return plain[0]
    for value in used:
        if isinstance(value, types.BuiltinFunctionType) and str(value.__module__) == "time":
            return value.__name__
        home = value.__name__ if isinstance(value, types.ModuleType) else ""
        if isinstance(value, type) and value.__module__ == "datetime":
            home = "datetime"
        if home not in MODULES or (home in _RANDOM and (names | texts) & _OWN_STREAM):
            continue
        reaches = MODULES[home]
        outside = sorted(names if reaches is None else names & reaches)
        if outside:
            return f"{home}.{outside[0]}" if reaches is not None else home
    return ""
