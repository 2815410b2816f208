"""Measuring a model at the public API, at the stored resolution of the photos: one file per task.

Every task is a generator of rows (one per object, pair or photo, plain JSON) and a function `figures(rows)` that turns
rows into numbers. A results file keeps both, so that two of them can be compared row by row (`compare.py`).
"""
