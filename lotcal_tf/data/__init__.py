"""Datasets: where examples come from, how validation is cut, in memory or as a stream."""
