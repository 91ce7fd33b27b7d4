"""own_models."""
