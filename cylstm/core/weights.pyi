class Version:
    changes: int
