"""Recipes of the models that come with the package. A recipe imports the library; nothing imports a recipe."""
