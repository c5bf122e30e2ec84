"""One tree of errors; each carries the exit code that the command ends with.

::

    GreendError                    1   something failed
    ├── UsageError                 2   the words on the command line are off
    │   └── UnitError              2   "30 kilos": not a unit we know
    ├── DaemonNotRunning           3   nobody listens on the socket
    ├── PermissionDenied           4   somebody listens, but not to you
    ├── NotSupported               5   this machine cannot (no sensor and no model)
    │   └── Unenforceable          5   a limit that nothing here can hold
    ├── ConfigError                6   a configuration file that does not fit
    ├── SourceError                1   a counter could not be read
    ├── ControlError               1   a device's limit could not be read or set
    │   └── ControlHeld            1   somebody else holds it
    ├── ProtocolError              1   the other side of the socket refused or made no sense
    │   └── NotFound               1   no such job
    ├── SocketInUse                1   another daemon holds the socket
    └── StoreError                 1   the database could not be used
        ├── DatabaseDamaged        7   not a database, or one that fails its check
        └── DatabaseTooNew         7   written by a newer greend
"""


class GreendError(Exception):
    """Base of all errors; the message says what was being done, to what, why, and the fix."""

    exit_code = 1


class UsageError(GreendError):
    """The words on the command line are off."""

    exit_code = 2


class UnitError(UsageError):
    """A quantity whose unit or number is not known."""


class DaemonNotRunning(GreendError):
    """Nobody listens on the socket."""

    exit_code = 3


class PermissionDenied(GreendError):
    """The operating system or the daemon says: not you."""

    exit_code = 4


class NotSupported(GreendError):
    """This machine has no sensor and no model for what was asked."""

    exit_code = 5


class Unenforceable(NotSupported):
    """A limit that nothing on this machine can hold: it is refused before it is taken."""


class ConfigError(GreendError):
    """A configuration or coefficient file that does not fit."""

    exit_code = 6


class SourceError(GreendError):
    """A source of counters could not be read this time; the next read may succeed."""


class ControlError(GreendError):
    """A limit of a device could not be read or set, or the device did not take it."""


class ControlHeld(ControlError):
    """Another owner holds the control, or another program turns it."""


class ProtocolError(GreendError):
    """The other side of the socket refused a request, or its answer made no sense."""


class NotFound(ProtocolError):
    """The daemon or the history knows nothing under that name."""


class SocketInUse(GreendError):
    """Another daemon listens on the socket, or the path is not a socket."""


class StoreError(GreendError):
    """The database could not be read or written."""


class DatabaseDamaged(StoreError):
    """Not an SQLite database, or one that fails its own check."""

    exit_code = 7


class DatabaseTooNew(StoreError):
    """Written by a newer greend than this one."""

    exit_code = 7
