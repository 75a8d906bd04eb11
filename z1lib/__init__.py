"""z1lib: the functions behind the four notebooks of the Z1 study (arXiv 2504.00810)."""
