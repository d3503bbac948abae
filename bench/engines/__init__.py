"""How answers are generated: rows of token ids in, generations out, in whatever order they end."""

from bench.engines.base import Engine, Generation, Row

__all__ = ["Engine", "Generation", "Row"]
