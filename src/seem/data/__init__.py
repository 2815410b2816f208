"""Data sets on their way into training: readers of common layouts, the table of known sets, and the check for leaks."""
