"""What those who work on cylstm run: `tools.cross`, `tools.sanitize`."""
