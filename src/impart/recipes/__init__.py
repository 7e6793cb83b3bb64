"""Recipes of models that come with the package. Recipes import everything; nothing imports a recipe."""
