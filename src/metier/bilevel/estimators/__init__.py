"""Front doors: instrumental variables, fitted Bellman equations, the weights of data sources."""
