"""Recipe of the bundled model `mini`."""
