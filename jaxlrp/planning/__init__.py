"""What each layer is called, which rule it has, and what each edge carries."""
