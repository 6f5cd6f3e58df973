"""What another package may plug in: an attack as somebody else would write it, and things that are none."""

from __future__ import annotations

from retract.auditing.attacks import AttackType


class SecondView:
    """The score in the second view."""

    def __call__(self, targets, seen, shadows):
        return seen.scores[:, 1]


class Difference:
    """The score's difference from that in the shadow models."""

    def __call__(self, targets, seen, shadows):
        return (seen.features - shadows.reference(targets))[:, 0]


SECOND = AttackType("second", "tests.auditing.plugged:SecondView")
DIFFERENCE = AttackType("difference", Difference, needs_shadows=True)
