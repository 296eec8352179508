"""The page that reports one or more runs: what they are, their curves and their results."""
