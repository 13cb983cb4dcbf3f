"""What can go wrong with a trainer. Apart from the protocol, so that the command line can name it without pydantic."""


class TrainerError(Exception):
    """A trainer was declared, configured or fed wrongly; the message says what to change."""


class ProgramError(Exception):
    """A program could not be started, ended with an error, or never reported its metric."""


class Infeasible(Exception):
    """Raised by training code for a configuration that cannot be trained: ``raise hpo.Infeasible("does not fit")``.

    The trial ends as PRUNED with the reason and the sampler learns that the configuration violates a constraint. It is
    no failure: it is not tried again and does not count as one. A configuration's validator may raise it too.
    """

    def __init__(self, reason: str = "the trainer says that this configuration is infeasible") -> None:
        super().__init__(reason)
        self.reason = reason
