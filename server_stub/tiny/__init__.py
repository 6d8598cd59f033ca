"""A checkpoint of the real architecture, a few megabytes large, so that any CPU can run the real engine."""
