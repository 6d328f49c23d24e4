"""Models of other frameworks: files to models, and models to files."""
