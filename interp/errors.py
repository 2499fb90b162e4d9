"""The one error that a user may see: what happened, what was given, what would work."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user, printed as one line without a traceback.

    Args:
        what: what is wrong, in the field's words.
        given: the value that was given.
        works: what would work instead.
    """

    def __init__(self, what: str, *, given: object = None, works: str | None = None) -> None:
        self.what, self.given, self.works = what, given, works
        shown = f"an object of type {type(given).__name__}" if " object at 0x" in str(given) else given
        parts = [what if given is None else f"{what} (given: {shown})"]
        if works:
            parts.append(works)
        super().__init__(". ".join(part.rstrip(".") for part in parts))


class DiskError(UserError):
    """A disk that is full or cannot be written: what comes next in the same folder would fail as well."""
