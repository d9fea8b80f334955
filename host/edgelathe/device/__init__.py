"""Transports, the agent's client, installation, one open device."""
