"""A toy that says which process measures what, for tests that end one."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from interp.cell import Cell
from interp.context import Context
from tests.interp import toy


class SlowToy(toy.Toy):
    pids: str = ""
    """File to which each measuring process writes its id."""

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        with Path(self.pids).open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().measure(ctx, cells)
