"""How cylstm compares with other libraries, and with what the machine can do."""
