"""Numbers in JSON: JSON has no infinity and no NaN."""

from __future__ import annotations

import math
from typing import Any


def finite_or_none(value: Any) -> Any:
    """A value of dictionaries, lists and numbers with None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite_or_none(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
