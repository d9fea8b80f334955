"""The loop: plan candidates, measure them, decide."""
