"""`pipeline` and `python -m pipeline`: the command line, or what to install to have it."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; its exit code."""
    try:
        from pipeline import cli  # noqa: PLC0415 - a subscriber's base install has no command line
    except ModuleNotFoundError as error:
        install = "pip install 'sakari-users-pipeline[runtime,embedded]'"
        sys.stderr.write(f"pipeline: {error.name} is not installed; the command line needs: {install}\n")
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
