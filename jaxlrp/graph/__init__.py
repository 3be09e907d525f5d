"""From a function to a graph of named layers. Nothing here knows a rule."""
