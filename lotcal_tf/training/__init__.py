"""Training one level: the trainer, the compiled loop of steps, the optimizer, prediction."""
