"""Many devices: inventory and readiness."""
