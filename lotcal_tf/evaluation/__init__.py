"""Opening a model of any kind, and measuring it."""
