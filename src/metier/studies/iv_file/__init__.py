"""`metier iv FILE`: the effect of a treatment in a file of your own."""
