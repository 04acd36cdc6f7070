"""The student `linear-filter`; sizetransfer finds it through the entry point in pyproject.toml."""

from sizetransfer import hookimpl


@hookimpl
def register_students(register):
    """Register the student; what is heavy is imported here, when a student is needed."""
    from sizetransfer_example.student import LinearFilterSpec

    register(LinearFilterSpec)
