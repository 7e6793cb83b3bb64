"""References solved by kernel regression: the blender, its cross-validation, and the choice of its settings."""
