"""Real federations, carried by Flower: its SuperLink and SuperNodes pass the messages, and its Grid is our wire.

What needs Flower is imported where it is called, so that all else works without it (the extra `flower`).
"""

from retract.federation.flower.engine import Answer, FlowerEngine, Link, Seen
from retract.federation.flower.node import Node, answer_task, answering

__all__ = ["Answer", "FlowerEngine", "Link", "Node", "Seen", "answer_task", "answering"]
