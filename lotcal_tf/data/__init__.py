"""Data sets: sources, splits in memory or streamed, halves, label noise, corruptions."""
