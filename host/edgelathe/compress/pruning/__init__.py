"""Channels and connections that go."""
