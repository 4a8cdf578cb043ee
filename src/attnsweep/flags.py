"""Flags of a result by what they mean for its speed; a record's column `flags` holds them and others."""

#: Flags of results that are shown and never compared.
NOT_RANKED = ("implausible", "unchecked", "loose_check", "ceiling")

#: Flags by which a speed, or what it is said of, is another than the number beside it promises.
BEARING = (
    "allocating",
    "contended",
    "fallback",
    "foreign_process",
    "gpu_busy",
    "graph_break",
    "impure",
    "op_by_op",
    "options_unread",
    "stepped",
    "substituted",
    "throttled",
    "unhidden",
    "unsettled",
    "unstable",
)
