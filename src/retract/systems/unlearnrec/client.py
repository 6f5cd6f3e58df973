"""UnlearnRec beside the user's data: it reads what the server publishes, and keeps nothing."""

from __future__ import annotations

from retract.systems.central import CentralDevice


class UnlearnRecDevice(CentralDevice):
    """Inner products of the final embeddings; what is popular, for users without a shared interaction."""
