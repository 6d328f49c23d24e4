"""Reading and writing models: one file a format."""
