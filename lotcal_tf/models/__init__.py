"""Networks: built-in families, initial weights, checks of models, stateless dropout."""
