"""The search for tickets: level after level, each stored whole before the next begins."""
