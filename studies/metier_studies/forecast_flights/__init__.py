"""Study `forecast`: one model or specialists on the flights panel."""
