"""The command `cylstm`."""
