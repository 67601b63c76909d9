"""Every error that accelsim raises on purpose.

A message names the thing, the rule, the value and the remedy. The command line prints it on one line and exits with
status 2 for wrong input and 1 where the run itself says no.
"""


class AccelsimError(Exception):
    """Base of all errors raised on purpose by accelsim."""


class FormatError(AccelsimError, ValueError):
    """An integer format or quantization parameter is outside its range."""


class MachineError(AccelsimError, ValueError):
    """A machine description is not valid."""


class ModelError(AccelsimError, ValueError):
    """A model file is malformed, or asks for something that is not supported."""


class CalibrationError(AccelsimError, ValueError):
    """Calibration data cannot be used with the graph."""


class LoweringError(AccelsimError, ValueError):
    """A quantized graph has no integer program on the given machine."""


class OperandError(AccelsimError, ValueError):
    """An array handed to the simulator has the wrong shape, type or values."""


class DataError(AccelsimError, ValueError):
    """A data file cannot be read, or does not hold what was asked for."""


class AccumulatorOverflowError(AccelsimError, ArithmeticError):
    """An accumulator overflowed on a machine whose overflow mode is ``error``."""
