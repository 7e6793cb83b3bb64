"""Source files of an export: rates and time codes, and the frames and sound of a span."""
