"""Figures of merit and their pictures: NumPy and scikit-learn only, the lowest floor of the house."""
