from tests.commands.conftest import a_run, memmeta, no_pictures  # noqa: F401 - fixtures
