"""The HTTP API: an ASGI application over sessions and store, with OpenAI-shaped requests, answers and errors."""
