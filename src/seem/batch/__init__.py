"""Whole collections of photos: the same question to every photo, or each photo's own, in runs that can be cut off."""
