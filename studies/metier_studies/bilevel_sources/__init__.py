"""Study `bilevel-sources`: weights of data sources, simulated and on the flights."""
