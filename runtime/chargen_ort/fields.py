"""The kinds of values that records have, with their limits."""

import math
from collections.abc import Mapping
from typing import Annotated

from chargen_ort.strict import Within

MAX_TOKENS = 1 << 16
MAX_LINE = 4096  # characters
LINE_PATTERN = "[^\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]*"

TokenId = Annotated[int, Within(0, MAX_TOKENS - 1)]
Count = Annotated[int, Within(0, (1 << 63) - 1)]
Size = Annotated[int, Within(1, (1 << 63) - 1)]
Amount = Annotated[float, Within(0)]
Real = Annotated[float, Within(-math.inf)]
Share = Annotated[float, Within(0, 1)]
Line = Annotated[
    str, Within(0, MAX_LINE, LINE_PATTERN, "one line without control or direction characters")
]
Sha256 = Annotated[str, Within(64, 64, "[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
Versions = Annotated[Mapping[str, Line], Within(0, 64)]
