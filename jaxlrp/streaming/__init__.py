"""Explain a whole data set batch by batch, into arrays or into a store on disk."""

from jaxlrp.streaming.loop import stream

__all__ = ["stream"]
