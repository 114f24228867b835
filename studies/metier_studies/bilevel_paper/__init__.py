"""Study `bilevel-paper`: the settings of the paper's figures, its tables beside ours."""
