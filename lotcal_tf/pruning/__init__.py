"""Pruning: masked layers, criteria, selection of weights, rewinding, compaction."""
