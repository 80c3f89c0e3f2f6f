"""Figures of merit and their pictures: NumPy only, the lowest floor of the house."""
