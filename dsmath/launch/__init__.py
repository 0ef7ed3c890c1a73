"""Runs of many processes on clusters: what is submitted, where, and how it comes back after a preemption."""
