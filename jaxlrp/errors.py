"""Every error that jaxlrp raises on purpose, derived from `LRPError`, and its warning."""


class LRPError(Exception):
    """Base class of the errors of jaxlrp."""


class InputError(LRPError, ValueError):
    """An argument cannot be explained: wrong type, dtype or shape."""


class TargetError(LRPError, ValueError):
    """The target does not fit the output of the function."""


class SelectorError(LRPError, ValueError):
    """A selector in a rule map, `layers=` or `condition=` matches nothing, or is ambiguous."""


class RuleError(LRPError, ValueError):
    """A rule has impossible parameters, or was given to a layer that it does not fit."""


class UnsupportedPrimitiveError(LRPError, NotImplementedError):
    """Relevance must cross an equation for which no rule is known."""


class NonFiniteError(LRPError, FloatingPointError):
    """Raised with `check_finite=True` when a value or a relevance is NaN or infinite."""


class ArgnumsWarning(UserWarning):
    """The explained argument is the first, by default, but the examples are in another one."""


class TrainingModeWarning(UserWarning):
    """The explained network draws random numbers, or normalises over its batch, as in training."""


class JaxVersionError(LRPError, RuntimeError):
    """The installed JAX describes a program in a way that this jaxlrp does not know."""
