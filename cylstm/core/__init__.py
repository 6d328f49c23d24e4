"""The recurrence, compiled: what is above it knows parameters and arrays."""
