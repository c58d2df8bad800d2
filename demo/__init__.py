"""An offline picture-search site that speaks the protocols of real engines; `python -m demo` runs it."""

from demo.app import Gallery, running_gallery
from demo.faults import FaultError

__all__ = ["FaultError", "Gallery", "running_gallery"]
