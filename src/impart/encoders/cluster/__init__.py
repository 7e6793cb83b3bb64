"""Work on several machines through Ray: connection, workers, and the encoder that they load."""
