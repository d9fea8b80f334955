"""Plain data that every layer shares: budget, profile, recipe grammar, dataset, device, result, errors."""
