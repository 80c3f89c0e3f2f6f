"""Calibration: strategies that train for it, their losses, and temperature scaling."""
