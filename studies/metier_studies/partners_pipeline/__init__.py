"""Study `partners`: specialist partners, distilled, and the generalist that learns with them."""
