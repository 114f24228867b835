"""Study `bilevel-lasso`: many instruments and a first stage that shrinks."""
