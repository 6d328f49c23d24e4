"""Any number of ragged sequences through a model: sorted, in batches, on all threads."""
