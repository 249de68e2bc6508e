"""HTTP: the listener, and what is mounted on it."""
