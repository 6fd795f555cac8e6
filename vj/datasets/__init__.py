"""Labelled images: one type for all annotation formats, one reader for each; cutting objects out; backgrounds."""
