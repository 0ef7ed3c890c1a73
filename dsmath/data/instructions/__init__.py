"""Public instruction sets of mathematics: their formats, the checks of their solutions, one record for all."""
