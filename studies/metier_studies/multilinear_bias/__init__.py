"""A planted bias against a sub-population: expert thresholding, blind thresholding, re-weighting."""
