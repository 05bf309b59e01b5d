"""The operations that pick, place, join and order numbers: see takes.py, joins.py and sorts.py."""

from . import joins as joins
from . import sorts as sorts
from . import takes as takes
