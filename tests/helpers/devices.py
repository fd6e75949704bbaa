"""The device of a test."""


def device_of(test):
    """The name of the device that a test runs on, or None."""
    callspec = getattr(test, "callspec", None)
    return None if callspec is None else callspec.params.get("device")
