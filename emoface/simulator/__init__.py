"""A simulated EMOTIC: photos drawn so that what is drawn causes the labels, and everything true is known.

``plans`` decides who stands where and why they feel what they feel, ``photos`` draws it.
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
