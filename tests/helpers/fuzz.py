"""Settings of property tests whose examples are slow. Other property tests use the profiles of conftest.py."""

from hypothesis import settings

slow_examples = settings(max_examples=settings.default.max_examples // 5)
