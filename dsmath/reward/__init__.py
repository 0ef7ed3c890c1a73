"""Rewards: the answer at the end of a solution, its equivalence with the gold answer, and the rule reward."""
