"""Taps: functions that see, and may replace, named values inside a model while it runs.

`places.py` names the values, `scope.py` installs functions at them and removes them again, `attention.py`
reaches those inside attention. A model without taps runs no code of this package.
"""

from minitx.models.taps.places import Place, list_places, match_places, run_order
from minitx.models.taps.scope import Call, Scope, TapFunction, scope_of, tapped

__all__ = [
    "Call",
    "Place",
    "Scope",
    "TapFunction",
    "list_places",
    "match_places",
    "run_order",
    "scope_of",
    "tapped",
]
