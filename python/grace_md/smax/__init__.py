"""Entropy-maximised structures: the method of section IV.1 of Exploring the extremes (arXiv 2602.23489)."""
