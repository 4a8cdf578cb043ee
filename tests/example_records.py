"""Records for tests of them: a value for each type of column, and one that is ok."""

from __future__ import annotations

from typing import Any

from attnsweep.records import TELEMETRY, Record

#: A value that fits each type of column.
EXAMPLES: dict[str, Any] = {
    "int": 3,
    "float": 0.5,
    "str": "text",
    "bool": True,
    "ints": [1, -1],
    "floats": [0.5, 1.5],
    "strs": ["a", "b"],
    "telemetry": [dict.fromkeys(TELEMETRY, 1.0)],
}


def ok(**changed: object) -> Record:
    """A record of status ok with these columns."""
    return Record({"cell_id": "c", "status": "ok", "latency_ms": 0.4, **changed})
