"""What finished runs say together: descent, best tickets, claims as numbers, figures."""
