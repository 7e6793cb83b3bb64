"""References solved in closed form: the blender, its cross-validation, and the choice of its settings."""
