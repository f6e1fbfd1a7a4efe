"""Recurrent layers: LRP through time (Arras et al. 2017, 2019), for all sequences of a batch at once."""

from relprop.engine.recurrent import functions

__all__ = ["functions"]
