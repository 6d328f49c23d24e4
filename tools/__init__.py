"""What those who work on cylstm run: `tools.cross`, `sanitize`, `soak`, `wheel`."""
