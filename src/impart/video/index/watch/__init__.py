"""Watch folders, and index what arrives in them."""
