"""retract: a recommender you can take your data back from."""

__version__ = "0.1.0"
