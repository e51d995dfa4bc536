"""Training text composed from templates written for this project: every row is flagged `synthetic`."""
