"""Results that several tests read, computed once per process.

All are pure functions of their arguments and give frozen results. What tests that they repeat calls them
without a cache.
"""

import functools

from metier import multi_index
from metier.multi_index.asymptotics import signal_function as _signal_function

committee = functools.cache(multi_index.committee)
hierarchical = functools.cache(multi_index.hierarchical)
thresholds = functools.cache(multi_index.thresholds)
signal_function = functools.cache(_signal_function)
