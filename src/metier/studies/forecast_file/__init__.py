"""`metier forecast FILE`: the same questions asked of a user's own table."""
