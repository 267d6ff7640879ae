"""The PyTorch twins: one file per architecture, whose class takes its spec."""
