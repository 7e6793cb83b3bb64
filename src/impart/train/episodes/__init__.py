"""Training mode `episodes`: the RAM learns on small problems that only the references can solve."""
