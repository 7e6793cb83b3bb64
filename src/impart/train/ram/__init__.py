"""Training mode `ram`: a frozen encoder, and only the RAM learns."""
