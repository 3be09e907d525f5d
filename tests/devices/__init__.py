"""Programs that tests start: each wants to choose its own devices, before JAX looks for them."""
