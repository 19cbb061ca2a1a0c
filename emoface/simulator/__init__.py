"""Draws photos like EMOTIC's whose labels are caused by what is drawn, so that the whole truth about them is known.

``plans`` decides where people stand and what causes their labels; ``photos`` draws the plan.
"""

from emoface.simulator.causes import Cause, label_probabilities
from emoface.simulator.photos import DrawnPerson, DrawnPhoto, draw_photo
from emoface.simulator.plans import PersonPlan, PhotoPlan, draw_plan

__all__ = [
    "Cause",
    "DrawnPerson",
    "DrawnPhoto",
    "PersonPlan",
    "PhotoPlan",
    "draw_photo",
    "draw_plan",
    "label_probabilities",
]
