"""greend in the user's process: a model in training becomes smaller or larger without noticing.

::

    import greend_agent

    greend_agent.attach(model, optimizer)

Between optimizer steps the model is always the original one; at the top level it is that bit for bit.
"""

from greend_agent.agent import Agent
from greend_agent.attach import attach, full
from greend_agent.elastic import DynamicConv2d, DynamicLinear
from greend_agent.norm.domains import (
    AdaptiveBatchNorm1d,
    AdaptiveBatchNorm2d,
    AdaptiveBatchNorm3d,
    adapted,
    domain_state_dict,
    load_domain_state_dict,
    make_adaptive,
)
from greend_agent.norm.recalibration import recalibrate

__all__ = [
    "AdaptiveBatchNorm1d",
    "AdaptiveBatchNorm2d",
    "AdaptiveBatchNorm3d",
    "Agent",
    "DynamicConv2d",
    "DynamicLinear",
    "adapted",
    "attach",
    "domain_state_dict",
    "full",
    "load_domain_state_dict",
    "make_adaptive",
    "recalibrate",
]
