"""Lines as `evaluate` takes them."""


class ListOfLines:
    """(name, image, label) of each line; an image may be an exception."""

    def __init__(self, lines):
        self.lines = lines

    def __len__(self):
        return len(self.lines)

    def name(self, index):
        return self.lines[index][0]

    def image(self, index):
        image = self.lines[index][1]
        if isinstance(image, Exception):
            raise image
        return image

    def label(self, index):
        return self.lines[index][2]
