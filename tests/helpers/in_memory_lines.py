"""Lines as `evaluate` takes them."""


class InMemoryLines:
    """Of (name, image, label) for each line; an image may be an exception."""

    def __init__(self, lines):
        self.names = [name for name, _, _ in lines]
        self.images = [image for _, image, _ in lines]
        self.labels = [label for _, _, label in lines]

    def image(self, index, mode):
        assert mode == "L"
        if isinstance(self.images[index], Exception):
            raise self.images[index]
        return self.images[index]
