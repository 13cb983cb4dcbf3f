"""The trainers that come with the package. Importing this module registers them; it imports no torch."""

from trainers.config import ClassifierConfig  # noqa: F401
