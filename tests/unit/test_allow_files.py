"""A process of hundreds of stores may open their files."""

import resource

from pipeline.runtime.run import allow_files


def test_the_limit_of_open_files_is_raised() -> None:
    """A common default, 1024, is too few for the stores of 24 partitions."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        allow_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(before[0], 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
