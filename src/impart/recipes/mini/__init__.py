"""How the bundled model `mini` is made."""
