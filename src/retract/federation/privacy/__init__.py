"""Privacy of rounds: stages of clipping and noise with an accountant, secure sums, and robust sums.

Each is an engine around another one, so a system trains and forgets with any of them unchanged. From the devices
outwards: `LocalEngine` or another, over tasks that are `staged`; `SecureEngine` or `RobustEngine`; `PrivateEngine`.
"""

from retract.federation.privacy.accountant import Accountant, Spending, Step, epsilon_of
from retract.federation.privacy.devices import staged
from retract.federation.privacy.engine import PrivateEngine
from retract.federation.privacy.grid import Buckets, Grid
from retract.federation.privacy.masking import MaskingClient
from retract.federation.privacy.masks import Identity
from retract.federation.privacy.messages import (
    Advertised,
    Confirmed,
    Masked,
    Roster,
    Sealed,
    Survivors,
    Terms,
    Unmasking,
)
from retract.federation.privacy.randomness import Keyed, Randomness, Secret
from retract.federation.privacy.robust import NormBound, RobustEngine, TrimmedMean
from retract.federation.privacy.secure import Losses, SecureEngine, SecureSums, session_of
from retract.federation.privacy.stages import ClientNoise, Clip, ServerNoise, Shrink, Stage, multiplier_of, private_name
from retract.federation.privacy.unmasking import UnmaskingServer

__all__ = [
    "Accountant",
    "Advertised",
    "Buckets",
    "ClientNoise",
    "Clip",
    "Confirmed",
    "Grid",
    "Identity",
    "Keyed",
    "Losses",
    "Masked",
    "MaskingClient",
    "NormBound",
    "PrivateEngine",
    "Randomness",
    "RobustEngine",
    "Roster",
    "Sealed",
    "Secret",
    "SecureEngine",
    "SecureSums",
    "ServerNoise",
    "Shrink",
    "Spending",
    "Stage",
    "Step",
    "Survivors",
    "Terms",
    "TrimmedMean",
    "Unmasking",
    "UnmaskingServer",
    "epsilon_of",
    "multiplier_of",
    "private_name",
    "session_of",
    "staged",
]
