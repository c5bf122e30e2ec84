"""greend in the user's process: a model in training becomes smaller or larger without noticing.

::

    import greend_agent

    greend_agent.attach(model, optimizer)

Between optimizer steps the model is always the original one; at the top level it is that bit for bit.
"""

from greend_agent.agent import Agent
from greend_agent.attach import attach, full
from greend_agent.elastic import DynamicConv2d, DynamicLinear

__all__ = ["Agent", "DynamicConv2d", "DynamicLinear", "attach", "full"]
