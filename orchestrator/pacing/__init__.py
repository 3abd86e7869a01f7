"""The limiter's control law, pure: how fast requests start, when they pause, how they resume.

opening → (ready_at → started → next_pace)* → learned
"""

from orchestrator.pacing.law import held_s, in_flight_bound, learned, next_pace, opening, ready_at, released, started
from orchestrator.pacing.state import Binding, Cause, Effect, Feedback, Observation, Pace, Phase, Stage, Ticket

__all__ = [
    "Binding",
    "Cause",
    "Effect",
    "Feedback",
    "Observation",
    "Pace",
    "Phase",
    "Stage",
    "Ticket",
    "held_s",
    "in_flight_bound",
    "learned",
    "next_pace",
    "opening",
    "ready_at",
    "released",
    "started",
]
