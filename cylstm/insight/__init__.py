"""A look inside: what gates, states and gradients do, in numbers and pictures.

The numbers need NumPy alone. Each picture is a call that returns a Matplotlib figure; for these,
``python -m pip install 'cylstm[plot]'``.
"""

from cylstm.insight.attribution import Saliency, saliency
from cylstm.insight.gradients import GradientWay, gradient_way
from cylstm.insight.page import report
from cylstm.insight.pictures import (
    draw_attention,
    draw_gates,
    draw_gradients,
    draw_memory,
    draw_saliency,
    draw_saturation,
    draw_text,
)
from cylstm.insight.remembered import Memory, memory, time_scales
from cylstm.insight.saturated import Saturation, saturation
from cylstm.insight.units import correlations

__all__ = [
    "GradientWay",
    "Memory",
    "Saliency",
    "Saturation",
    "correlations",
    "draw_attention",
    "draw_gates",
    "draw_gradients",
    "draw_memory",
    "draw_saliency",
    "draw_saturation",
    "draw_text",
    "gradient_way",
    "memory",
    "report",
    "saliency",
    "saturation",
    "time_scales",
]
