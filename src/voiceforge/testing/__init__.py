"""Public test doubles and tiny real models, for this project and for those who build on it."""
