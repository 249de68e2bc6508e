"""The agent: the loop between a model and tools, and the door to the models."""
