"""The trainer: samples, the search for features, AdaBoost, stages, mining and the loop over them."""
