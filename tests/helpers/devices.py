"""Which device a test is for."""


def device_of(test):
    """The name of the device that a test runs on; None if it is about none."""
    callspec = getattr(test, "callspec", None)
    return None if callspec is None else callspec.params.get("device")
