"""Read by Python when it starts, in the workers of a step that the torture suite runs."""

import os
import sys

if os.environ.get("TORTURE_POINTS"):
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import points

    points.join()
