"""Bytes to arrays and back: file formats, which know no model, and the limits on what is read."""
