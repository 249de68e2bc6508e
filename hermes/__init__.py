"""Hermes: an always-on gateway between people and an AI agent."""

__version__ = "0.1.0"
