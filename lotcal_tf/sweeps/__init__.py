"""Sweeps: many pruning runs from one description, on this machine or on a cluster."""
