"""Deployment: a ticket as a file, checked against the ticket before it counts as exported."""
