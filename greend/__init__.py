"""greend: from watts to weights.

This module imports nothing: the agent passes through it inside the user's process.
"""

__version__ = "0.1.0"
