"""Several devices and machines: who takes part, and how a step is shared out."""
