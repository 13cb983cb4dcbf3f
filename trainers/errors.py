"""What goes wrong with trainers; apart from the protocol, so that a command line can name it without pydantic."""


class TrainerError(Exception):
    """A trainer was declared, configured or fed wrongly; the message says what to change."""
