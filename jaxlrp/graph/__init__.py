"""From a function to a graph of layers. This package does not depend on rules."""
