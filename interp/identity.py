"""Identity of what a user wrote: its code and every value that the code uses.

A function is identified by its code in memory, the whole text of its module and of the user's modules that this one
imports, the versions of installed libraries, its defaults, its closure, and the values of the globals that it and its
helpers use. Objects are identified by their class and their state. What reaches outside of that (`eval`, an open file,
an environment variable read on each call, the clock, PyTorch's common random stream) has no identity, and nothing that
depends on it is kept; see `interp.hidden_reads`.
"""

from __future__ import annotations

import copyreg
import functools
import json
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

from interp.code_names import contents, global_names, local_imports, names_in, texts_in
from interp.digest import digest
from interp.errors import UserError
from interp.hidden_reads import hidden_read
from interp.source_files import is_project, library, sources

UNSAVED = "unsaved-"
"""Begins the identity of what cannot be identified: another one each time, so that nothing is recalled by it."""

_SILENT = frozenset({"__module__", "__dict__", "__weakref__", "__doc__", "_abc_impl"})
_ATOMS = (type(None), bool, int, str, type(Ellipsis), type(NotImplemented))
_WRAPPERS = (staticmethod, classmethod)
_CACHED = type(functools.cache(len))
_Form = Any
"""A JSON value: numbers, texts, lists, mappings."""

_announced: set[str] = set()


def code_identity(thing: object, *, strict: bool = True) -> str:
    """Return the digest of a function, class or object of a user, equal in every process while nothing changes.

    Args:
        thing: what the user wrote.
        strict: refuse code that reads files, the environment or names that its text does not tell.

    Raises:
        UserError: it cannot be identified; the message says why.
    """
    walk = _Walk(strict=strict)
    try:
        form = walk.value(thing)
        return digest(form, sorted(walk.files))
    except UserError:
        raise
    except Exception as error:  # whatever a user's object raises when its state is asked for
        raise UserError(f"its state cannot be read ({type(error).__name__}: {error})") from error


def kept_identity(thing: object, name: str, *, strict: bool = True) -> str:
    """Return `code_identity`; where there is none a new one each time, after one line that says why."""
    try:
        return code_identity(thing, strict=strict)
    except UserError as error:
        announce(name, str(error))
        return f"{UNSAVED}{uuid4().hex}"


def announce(name: str, reason: str) -> None:
    """Warn, once in a process, that nothing computed with something is kept."""
    line = f"nothing computed with {name} is kept: {reason}"
    if line not in _announced:
        _announced.add(line)
        warnings.warn(line, stacklevel=2)


def identity_of(part: Any) -> str:
    """Return the digest of an edit, intervention, task or source.

    A digest that a user's class computes need not cover all that the class uses, so its code and state are added.
    """
    stated = str(part.digest)
    if is_project(type(part)) or stated.startswith(UNSAVED):
        return stated
    known = kept_identity(part, type(part).__qualname__)
    return known if known.startswith(UNSAVED) else digest(stated, known)


class _Walk:
    """One walk over code and values; collects the source files behind them."""

    def __init__(self, *, strict: bool) -> None:
        self.files: set[str] = set()
        self._strict = strict
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # an id is only unique while its object lives
        self._modules: set[tuple[str, frozenset[str]]] = set()
        self._homes: dict[str, bool] = {}

    def value(self, part: Any) -> _Form:
        """Return what identifies a value."""
        if isinstance(part, _ATOMS):
            return [type(part).__name__, part] if isinstance(part, bool | int | str) else repr(part)
        if isinstance(part, float | complex | bytes):
            return [type(part).__name__, repr(part) if isinstance(part, complex) else digest(part)]
        if type(part) in (tuple, frozenset):  # equal ones may be one object or two, which differs between processes
            return self._container(part)
        if isinstance(part, types.CodeType):
            return self._code(part)
        if id(part) in self._seen:
            return {"seen": self._seen[id(part)]}
        self._seen[id(part)] = len(self._seen)
        self._alive.append(part)
        return self._container(part) if type(part) in (list, dict, set) else self._other(part)

    def _container(self, part: Any) -> _Form:
        kind = type(part).__name__
        if isinstance(part, dict):
            pairs: Mapping[Any, Any] = part
            return [kind, [[self.value(key), self.value(item)] for key, item in pairs.items()]]
        items = [self.value(item) for item in part]
        return [kind, sorted(items, key=json.dumps) if kind.endswith("set") else items]

    def _other(self, part: Any) -> _Form:
        for kinds, read in self._readers():
            if isinstance(part, kinds):
                return read(part)
        if type(part).__module__ in ("typing", "types") or isinstance(part, types.GenericAlias):
            return ["annotation", repr(part)]
        return self._object(part)

    def _readers(self) -> Iterator[tuple[Any, Callable[[Any], _Form]]]:
        yield types.FunctionType, self._function
        yield types.MethodType, lambda part: ["method", self.value(part.__func__), self.value(part.__self__)]
        yield types.BuiltinMethodType, self._builtin
        yield type, self._class
        yield types.ModuleType, lambda part: self._module(part, frozenset(_public(part)))
        yield _WRAPPERS, lambda part: [type(part).__name__, self.value(part.__func__)]
        yield property, lambda part: ["property", *map(self.value, (part.fget, part.fset, part.fdel))]
        yield _CACHED, lambda part: ["cached", self.value(part.__wrapped__)]
        yield types.MappingProxyType, lambda part: ["mapping", self.value(dict(part))]
        yield functools.cached_property, lambda part: ["cached property", self.value(part.func)]

    def _function(self, part: types.FunctionType) -> _Form:
        home, code = str(part.__globals__.get("__name__", "")), part.__code__
        names = names_in(code) | texts_in(code)  # a text may name what `getattr` reads
        held = [self._used(content, names) for content in contents(part)]
        if vars(sys.modules.get(home, part)) is part.__globals__ and self._installed(home):
            return ["library", home, part.__qualname__, held]  # a library's wrapper holds functions of the user
        used = {name: part.__globals__[name] for name in global_names(code) if name in part.__globals__}
        used |= {f"import {name}": sys.modules[name] for name in local_imports(code, home) if name in sys.modules}
        self._check_inside(part, [*used.values(), *contents(part)])
        values = [[name, self._used(item, names)] for name, item in used.items()]
        about = part.__defaults__, part.__kwdefaults__, dict(vars(part))
        return ["function", self._code(code), held, values, [self.value(item) for item in about]]

    def _used(self, part: object, names: frozenset[str]) -> _Form:
        return self._module(part, names) if isinstance(part, types.ModuleType) else self.value(part)

    def _check_inside(self, part: types.FunctionType, used: list[object]) -> None:
        """Refuse a function that reads what neither its code nor its values tell."""
        missing = [name for name in global_names(part.__code__) if name not in part.__globals__]
        code = part.__code__
        outside = hidden_read(used, missing, names_in(code), texts_in(code)) if self._strict else ""
        if outside:
            raise UserError(
                f"{part.__qualname__} uses `{outside}`, so what it depends on cannot be told",
                works="read files and settings where the module is loaded, and draw from a generator of the function",
            )

    def _module(self, part: types.ModuleType, names: frozenset[str]) -> _Form:
        """Return the name of a library; of a user's module the values of the attributes that are named."""
        if self._installed(part.__name__):
            return ["module", part.__name__]
        inside = () if (part.__name__, names) in self._modules else vars(part)
        self._modules.add((part.__name__, names))
        used = sorted(name for name in names if name in inside)
        return ["module", [[name, self._used(vars(part)[name], names)] for name in used]]

    def _class(self, part: type) -> _Form:
        if self._installed(part.__module__):
            return ["class", part.__module__, part.__qualname__]
        members = {name: item for name, item in vars(part).items() if _is_telling(name, item)}
        bases = [self.value(base) for base in (*part.__bases__, type(part))]
        return ["class", part.__qualname__, bases, [[name, self.value(members[name])] for name in sorted(members)]]

    def _builtin(self, part: types.BuiltinMethodType) -> _Form:
        holder: Any = part.__self__
        bound = holder is not None and not isinstance(holder, types.ModuleType)
        return ["builtin", str(part.__module__), part.__qualname__, self.value(holder) if bound else None]

    def _code(self, part: types.CodeType) -> _Form:
        constants = [self.value(item) for item in part.co_consts]
        names = [list(row) for row in (part.co_names, part.co_varnames, part.co_freevars, part.co_cellvars)]
        counts = [part.co_argcount, part.co_posonlyargcount, part.co_kwonlyargcount, part.co_flags]
        exceptions = getattr(part, "co_exceptiontable", b"")
        return ["code", part.co_name, digest(part.co_code, exceptions), constants, names, counts]

    def _object(self, part: Any) -> _Form:
        kind = type(part)
        if is_project(kind) and isinstance(stated := _stated(part), str):
            if stated.startswith(UNSAVED):
                raise UserError(f"it holds {kind.__qualname__}, which has no identity")
            return ["project", self.value(kind), stated]
        if hasattr(part, "dtype") and (hasattr(part, "detach") or hasattr(part, "tobytes")):
            return ["array", self.value(part.tolist()) if getattr(part.dtype, "hasobject", False) else digest(part)]
        registered: Any = copyreg.dispatch_table.get(kind)  # of compiled patterns, for instance
        reduced = part.__reduce_ex__(4) if registered is None else registered(part)
        if isinstance(reduced, str):
            return ["object", self.value(kind), reduced]
        make, arguments, *rest = reduced
        cached = _cached_names(kind)
        states = [_lasting(rest[0], cached) if rest else None, _lasting(getattr(part, "__dict__", None), cached)]
        states += [slots] if (slots := _slots(part)) and states[0] is None else []
        items = [self.value(list(more)) for more in rest[1:3] if more is not None]
        return ["object", self.value(make), self.value(arguments), [self.value(state) for state in states], items]

    def _installed(self, module: str) -> bool:
        """Tell whether a module is a library's, and note the version; of a user's module, note its sources."""
        if module not in self._homes:
            version = library(module)
            self.files |= sources(module) if version is None else {version}
            self._homes[module] = version is not None
        return self._homes[module]


def _stated(part: Any) -> object:
    """Return the digest that a value of this project states, or the fingerprint of a model."""
    return getattr(part, "digest", None) or getattr(part, "fingerprint", None)


def _cached_names(kind: type) -> set[str]:
    """Return the attributes that cached properties fill in when they are first read."""
    members = (item for base in kind.__mro__ for item in vars(base).items())
    return {name for name, item in members if isinstance(item, functools.cached_property)}


def _lasting(state: Any, cached: set[str]) -> Any:
    """Return the state of an object without what it computes from the rest."""
    if isinstance(state, tuple):
        return tuple(_lasting(part, cached) for part in state)
    if not isinstance(state, dict):
        return state
    # an empty one appears when it is first asked for
    return {name: item for name, item in state.items() if name not in cached} or None


def _slots(part: Any) -> dict[str, Any]:
    """Return the values of an object's slots, which its own `__reduce__` may leave out."""
    names = [name for base in type(part).__mro__ for name in _as_names(vars(base).get("__slots__", ()))]
    found = [name for name in names if not name.startswith("__") and hasattr(part, name)]
    return {name: getattr(part, name) for name in found}


def _as_names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_telling(name: str, member: object) -> bool:
    """Tell what a class says from what Python and pydantic derive from it."""
    if name in _SILENT or isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType):
        return False
    function: Any = getattr(member, "__func__", member)
    return isinstance(function, types.FunctionType) or not (name.startswith("__") and name.endswith("__"))


def _public(module: types.ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("__")]
