"""Training one level: optimizer, the compiled program of many steps, measuring."""
