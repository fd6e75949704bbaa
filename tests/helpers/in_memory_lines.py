"""A line source in memory, for `evaluate`."""


class InMemoryLines:
    """Built from (name, image, label) per line. An image may be an exception, which is raised when read."""

    def __init__(self, lines):
        self.names = [name for name, _, _ in lines]
        self.images = [image for _, image, _ in lines]
        self.labels = [label for _, _, label in lines]

    def image(self, index, mode):
        assert mode == "L"
        if isinstance(self.images[index], Exception):
            raise self.images[index]
        return self.images[index]
