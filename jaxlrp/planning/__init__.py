"""Names and rules of layers, and the choice of density or relevance for each edge."""
