"""Study `forecast-panels`: the choice against hindsight over many panels."""
