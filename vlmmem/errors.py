"""The one error that bad input raises."""


class InputError(ValueError):
    """Bad input, told in one line: where it stands, what was wrong, what would be right.

    The command line prints the line after ``vlmmem: error:`` and exits with code 2.

    >>> raise InputError("models.json: llama-2-13b: 'layers' is -1; a positive integer is needed")
    Traceback (most recent call last):
    vlmmem.errors.InputError: models.json: llama-2-13b: 'layers' is -1; a positive integer is needed
    """
