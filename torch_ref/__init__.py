"""The PyTorch twins and their training, which need torch but not jax."""
