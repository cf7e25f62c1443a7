"""The errors that pltrack raises.

PltrackError
├── SettingError(ValueError)      a setting or environment value that cannot be used
├── NoKeyError                    `require_key=True` and no PromptLayer key was found
├── JournalError                  the journal cannot be read or written
└── PromptError                   a prompt could not be fetched or published
    └── PromptNotFoundError(LookupError)
"""


class PltrackError(Exception):
    """The root of all errors raised by pltrack."""


class SettingError(PltrackError, ValueError):
    """A setting or an environment variable has a value that cannot be used."""


class NoKeyError(PltrackError):
    """`require_key=True` was configured and no PromptLayer key was found."""


class JournalError(PltrackError):
    """The journal cannot be read or written."""


class PromptError(PltrackError):
    """A prompt could not be fetched from, or published to, the registry."""


class PromptNotFoundError(PromptError, LookupError):
    """No prompt with that name, version or label exists."""
