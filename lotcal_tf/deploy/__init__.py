"""Deployment: exporting a ticket to files that are verified against the ticket."""
