"""Reports: comparison, tables, plots, and the folder that holds them."""
