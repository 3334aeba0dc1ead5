"""The two ways a run ends early, as exceptions that carry one sentence for the user."""


class StraylightError(Exception):
    """Something the user can mend: what is wrong, where, and what to do, in one sentence."""


class DataError(StraylightError):
    """A data set that is missing, unreadable or unfit for training."""


class ConfigError(StraylightError):
    """A config that names something that does not exist or holds a value that does not fit."""


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM, after the checkpoint was written. Exit status 130.

    A `SystemExit`, so that neither Lightning nor Hydra takes it for a failure of the program.
    """

    def __init__(self) -> None:
        super().__init__(130)
