"""Statistics of experiments: intervals over problems, tests against null distributions, verdicts. No torch here."""

from __future__ import annotations

from interp.summaries.associations import (
    OddsRatio,
    Test,
    against_null,
    auc,
    benjamini_hochberg,
    mantel,
    mantel_haenszel,
)
from interp.summaries.intervals import (
    GAIN,
    SHARE,
    UNBOUNDED,
    Band,
    Interval,
    band,
    bootstrap,
    control_range,
    difference,
    of_equal,
    room,
    wilson,
)
from interp.summaries.verdicts import FLOOR, Verdict, detectable, detectable_from, share, verdict
from interp.summaries.widths import POSITIVE, TWICE, Bounds, with_width

__all__ = [
    "FLOOR",
    "GAIN",
    "POSITIVE",
    "SHARE",
    "TWICE",
    "UNBOUNDED",
    "Band",
    "Bounds",
    "Interval",
    "OddsRatio",
    "Test",
    "Verdict",
    "against_null",
    "auc",
    "band",
    "benjamini_hochberg",
    "bootstrap",
    "control_range",
    "detectable",
    "detectable_from",
    "difference",
    "mantel",
    "mantel_haenszel",
    "of_equal",
    "room",
    "share",
    "verdict",
    "wilson",
    "with_width",
]
