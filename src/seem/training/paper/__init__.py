"""Training the official model as the paper does (arXiv 2304.06718; SPEC sections 7 to 12)."""
