"""The one error tree of matjip.

    MatjipError                 anything matjip refuses to do
    ├── ContractError           a value is outside the contract (data/contract.py)
    ├── SettingsError           a recipe, settings file or environment value is wrong
    ├── SourceError             labels cannot be read from where they are said to be
    ├── DataUnfitError          labels were read, but nothing can be trained on them
    ├── LeakageError            a split lets the test side into the training side
    ├── ArtifactError           what one step handed the next is missing, cut short or altered
    ├── ExportError             an exported or quantised graph does not answer like its source
    ├── MetricError             a metric cannot be computed; it is never reported as zero
    ├── GateError               a model may not go on: its evidence is missing or says no
    ├── RegistryError           the registry refused, is unreachable, or disagrees with the evidence
    │   └── MoveRefusedError    an alias may not move so, however often it is tried
    ├── EngineError             an inference engine cannot load or answer
    │   ├── EngineMemoryError   it ran out of memory; a smaller batch may do
    │   ├── OverloadError       too much waits already; come again after ``retry_after_s``
    │   └── DeadlineError       the time that the caller gave was up before the answer was there
    └── ExperimentError         an experiment, exposure or outcome is not valid

Every message says what happened, shows the value with ``!r``, and says how to mend it.
"""


class MatjipError(Exception):
    """Base of every error that matjip raises on purpose."""


class ContractError(MatjipError):
    """A value is outside the contract."""


class SettingsError(MatjipError):
    """A recipe, settings file or environment value is wrong."""


class SourceError(MatjipError):
    """Labels cannot be read from where they are said to be."""


class DataUnfitError(MatjipError):
    """Labels were read, but nothing can be trained on them."""


class LeakageError(MatjipError):
    """A split lets the test side into the training side."""


class ArtifactError(MatjipError):
    """A file that one step handed the next is missing, cut short or altered."""


class ExportError(MatjipError):
    """An exported or quantised graph does not answer like its source."""


class MetricError(MatjipError):
    """A metric cannot be computed; it is never reported as zero."""


class GateError(MatjipError):
    """A model may not go on: its evidence is missing or says no."""


class RegistryError(MatjipError):
    """The model registry refused, is unreachable, or disagrees with the evidence."""


class MoveRefusedError(RegistryError):
    """An alias may not move so: the evidence does not allow it, or it names another version."""


class EngineError(MatjipError):
    """An inference engine cannot load or answer."""


class EngineMemoryError(EngineError):
    """An inference engine ran out of memory; a smaller batch may do."""


class OverloadError(EngineError):
    """Too much waits already, or the server is closing.

    Attributes:
        retry_after_s: after how many seconds it is worth trying again.
    """

    def __init__(self, message: str, *, retry_after_s: float):
        """Say when to come again."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(EngineError):
    """The time that the caller gave was up before the answer was there."""


class ExperimentError(MatjipError):
    """An experiment, exposure or outcome is not valid."""
