"""The rigs as fixtures."""

from rigs.nvml import nvml, nvml_library
from rigs.powercap import powercap

__all__ = ["nvml", "nvml_library", "powercap"]
