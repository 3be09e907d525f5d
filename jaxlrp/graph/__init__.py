"""From a function to a graph of named layers. This package does not know rules."""
