"""dsmath beside named peers, on the same work in the same run."""
