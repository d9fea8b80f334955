"""The table of all steps; resolves a recipe's text and runs it on a model."""
