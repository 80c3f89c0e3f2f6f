"""Calibration strategies: how a step trains, and the losses it trains with."""
