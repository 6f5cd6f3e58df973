"""The version of retract, in a room of its own: whoever asks for it need not import all that `retract` exports."""

__version__ = "0.1.0"
