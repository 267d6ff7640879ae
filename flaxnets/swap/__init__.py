"""One backend in place of the other inside research code that already works."""
