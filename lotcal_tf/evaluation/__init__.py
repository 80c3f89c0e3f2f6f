"""Opening and measuring models of any kind."""
