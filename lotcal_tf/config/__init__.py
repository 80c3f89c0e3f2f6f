"""What an experiment is, and what can be named in it; nothing here imports TensorFlow."""
