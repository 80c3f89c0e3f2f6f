"""Pruning: masking layers, which weights go, what the survivors start from again."""
