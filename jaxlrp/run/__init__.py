"""Plans, and running them forward and backward."""
