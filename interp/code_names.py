"""Names, texts and values that the code of a function refers to."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
from typing import TypeGuard


def contents(part: types.FunctionType) -> list[object]:
    """Return the values that a function holds from the functions around it."""
    return [cell.cell_contents for cell in part.__closure__ or () if _is_filled(cell)]


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is not bound yet
        return False


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function and of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def global_names(code: types.CodeType) -> list[str]:
    """Return the global names that a function and the functions inside it read."""
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    steps = (step for one in codes(code) for step in dis.get_instructions(one) if step.opname in loads)
    return sorted({str(step.argval) for step in steps})


def names_in(code: types.CodeType) -> frozenset[str]:
    """Return the names and attributes that a function's code reads."""
    return frozenset(name for one in codes(code) for name in one.co_names)


def texts_in(code: types.CodeType) -> frozenset[str]:
    """Return the constants of a function's code that could name something, names of arguments included."""
    constants = [constant for one in codes(code) for constant in one.co_consts]
    items = [item for one in constants for item in (one if isinstance(one, tuple) else (one,))]
    return frozenset(item for item in items if _is_name(item))


def _is_name(item: object) -> TypeGuard[str]:
    return isinstance(item, str) and item.isidentifier()


def local_imports(code: types.CodeType, home: str) -> list[str]:
    """Return the modules that a function imports when it is called, by absolute name."""
    steps = (step for one in codes(code) for step in dis.get_instructions(one) if step.opname == "IMPORT_NAME")
    names = {str(step.argval) for step in steps}
    packages = [home.rsplit(".", cut)[0] for cut in range(1, home.count(".") + 1)]
    return sorted(names | {f"{package}.{name}".rstrip(".") for name in names for package in packages})
