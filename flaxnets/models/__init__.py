"""The Flax NNX twins: one file per architecture, whose class takes its spec and `rngs`."""
