"""The synthesizer of the tests."""

from tests.synthesizers import drawn  # noqa: F401  a fixture
