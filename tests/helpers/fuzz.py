"""Settings of property tests with slow examples; the others use the profiles of conftest.py."""

from hypothesis import settings

slow_examples = settings(max_examples=settings.default.max_examples // 5)
