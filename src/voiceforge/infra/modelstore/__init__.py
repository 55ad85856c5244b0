"""Where model files live, and how they get there."""
