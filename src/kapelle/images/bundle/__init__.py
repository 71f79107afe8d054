"""A project in one file: its images and what its compose files need, for a machine without a network."""
