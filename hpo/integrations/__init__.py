"""Callbacks for training frameworks: each validation is a report, and a pruned trial ends. Nothing of a framework is
imported before its callback is."""
